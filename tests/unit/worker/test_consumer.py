"""A consumer commits a lone quick job itself and keeps the right to listen; every other one goes to the committer."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import redis

from convlens.jobs.queue import keys
from convlens.jobs.queue.consumer import ClaimReply
from convlens.worker.pipeline.consumer import QUICK_BYTES, QUICK_PIXELS, Consumer, ConsumerPool
from convlens.worker.pipeline.limits import InFlightLimit


def claim(kind="one", pixels=1, result_bytes=1, seconds=0.0):
    """A claim of one image, and what its job is: bytes of its result, seconds on the device."""
    record = SimpleNamespace(kind=kind, is_large=kind != "one", pixels=pixels)
    return SimpleNamespace(record=record, images=[None], result_bytes=result_bytes, seconds=seconds)


class Worker:
    """A pool of consumers over a queue, a decoder, a device and a committer that say what happened."""

    def __init__(self, *replies, may_block=False, error=None):
        """`replies` are what is claimed, each for a message; then there are no messages."""
        self.replies = list(replies)
        self.error = error
        self.events = []
        self.model = SimpleNamespace(pool="a", card=SimpleNamespace(name="a"), limit=InFlightLimit(8))
        payloads = SimpleNamespace(may_block=may_block)
        queue = SimpleNamespace(payloads=payloads, redis=None, next_message=self._next_message)
        claimer = SimpleNamespace(claim=self._claim, wait_for_change=lambda _: self.events.append("waited"))
        committer = SimpleNamespace(commit=self._commit, put=lambda _: self.events.append(("put", self.is_locked)))
        self.pool = ConsumerPool(
            queue, claimer, SimpleNamespace(submit=self._submit), committer, None, [self.model], 2, None
        )
        self.pool.large_jobs.submit = lambda *_: Future()  # never ends

    @property
    def is_locked(self):
        """True while a consumer has the right to listen."""
        return self.pool._listening["a"].locked()

    def run(self):
        """Run a consumer until there are no messages, the first of which it received itself."""
        consumer = Consumer(self.pool, self.model, is_extra=False)
        consumer._listen_lock.acquire(1)
        permit = "one"
        while permit:
            consumer._claim(permit)
            permit = self.replies and consumer._next_message()
        return consumer

    def _next_message(self, _pool, kinds, _seconds):
        self.events.append(("listened", tuple(kinds)))
        return "one" if self.replies else None

    def _claim(self, *_):
        return self.replies.pop(0)

    def _submit(self, _model, claims):
        if self.error:
            raise self.error
        for claimed in claims:
            piece = Future()
            piece.add_done_callback(lambda _: self.model.limit.release(1))
            if claimed.seconds:
                threading.Timer(claimed.seconds, piece.set_result, [None]).start()
            else:
                piece.set_result(None)
            yield SimpleNamespace(
                pieces=[piece],
                plan=SimpleNamespace(result_bytes=claimed.result_bytes),
                call_when_computed=lambda function, piece=piece: piece.add_done_callback(function),
            )

    def _commit(self, jobs):
        self.events.append(("committed", self.is_locked))
        assert all(piece.done() for job in jobs for piece in job.pieces)


def one(**job):
    return ClaimReply([claim(**job)], is_blocked=False)


def test_lone_quick_jobs_are_committed_one_after_another_by_the_consumer_that_listens():
    worker = Worker(one(), one(), one())
    worker.run()
    listened = ("listened", tuple(keys.KINDS))
    assert worker.events == [("committed", True), listened, ("committed", True), listened, ("committed", True)]


@pytest.mark.parametrize(
    "reply",
    [
        ClaimReply([claim(), claim()], is_blocked=False),
        one(pixels=QUICK_PIXELS + 1),
        one(result_bytes=QUICK_BYTES + 1),
        one(seconds=0.2),
    ],
    ids=["two", "large images", "a large result", "long on the device"],
)
def test_other_jobs_are_left_to_the_committer_and_others_may_listen(reply, monkeypatch):
    worker = Worker(reply)
    computed = threading.Event()
    worker.pool.committer.put = lambda _: computed.set()
    worker.run()
    assert not worker.is_locked
    assert computed.wait(5)
    assert ("committed", True) not in worker.events


def test_where_payloads_may_block_jobs_are_left_to_the_committer():
    worker = Worker(one(), may_block=True)
    worker.run()
    assert worker.events == [("put", False)]


def test_a_job_before_a_suspect_is_left_to_the_committer_so_that_its_end_is_noticed():
    worker = Worker(ClaimReply([claim()], is_blocked=True))
    worker.run()
    assert worker.events == [("put", False), "waited"]


def test_while_a_large_job_is_under_way_others_may_listen():
    worker = Worker(one(kind="huge"), one())
    worker.run()
    assert worker.events == [("listened", ("", "many")), ("put", False)]


def test_an_error_releases_the_lock():
    worker = Worker(error=redis.ConnectionError("gone"))
    worker.replies = [one()]
    consumer = Consumer(worker.pool, worker.model, is_extra=False)
    consumer._listen_lock.acquire(1)
    consumer.run("one")
    assert not worker.is_locked
