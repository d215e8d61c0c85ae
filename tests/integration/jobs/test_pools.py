"""Pools: a job is computed by the weights that it was validated for, and ends when these gave way to others."""

from __future__ import annotations

import contextlib
import time

import pytest
from processes import full, until

from convlens.jobs import model_registry
from convlens.jobs.pools import pool_of
from convlens.jobs.queue import keys
from convlens.jobs.queue.new_job import RequestIdReused
from convlens.jobs.queue.record import State
from convlens.v1 import model_pb2

CARDS = {digest: model_pb2.Model(name="m", digest=digest) for digest in ("old", "new")}
OLD, NEW = map(pool_of, CARDS.values())
EQUAL = {"fingerprint": "f", "images": [("d1", b"first"), ("d2", b"second")]}


@contextlib.contextmanager
def serving(jobs, digest):
    """A worker of these weights."""
    queue = jobs.queue
    heartbeat = model_registry.RegistrationHeartbeat(
        queue.redis, f"worker-{digest}", [CARDS[digest]], queue.settings.lease
    )
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.stop()


def ended(jobs, record, **options):
    """Has the reconciler look until the job has ended; its reason."""
    until(lambda: jobs.queue.reconcile(**options) is None or jobs.get(record).state.final)
    return jobs.get(record).failure.reason


def test_a_worker_takes_jobs_of_its_own_weights_alone(jobs):
    old, new = jobs.submit(pool=OLD), jobs.submit(pool=NEW)
    assert (old.model, old.pool) == ("m", OLD)
    assert [it.record.id for it in jobs.claim(pool=NEW, jobs=9)] == [new.id]
    assert jobs.claim(pool="m") == []
    (claim,) = jobs.claim(pool=OLD, jobs=9)
    assert claim.record == jobs.get(old)
    jobs.queue.release(claim)
    assert jobs.claim(pool=NEW) == []
    assert len(jobs.claim(pool=OLD)) == 1


def test_equal_requests_share_results_only_of_the_same_weights(jobs):
    jobs.succeed(jobs.take(jobs.submit(pool=OLD, **EQUAL)), b"old")
    new = jobs.submit(pool=NEW, **EQUAL)
    assert (new.state, new.primary) == (State.QUEUED, "")
    assert jobs.submit(pool=NEW, **EQUAL).primary == new.id
    jobs.succeed(jobs.take(new), b"new")
    for pool, body in ((OLD, b"old"), (NEW, b"new")):
        assert jobs.queue.read_result(jobs.submit(pool=pool, **EQUAL), 0, 3) == body


def test_the_result_of_deleted_jobs_answers_nobody(jobs):
    for pool in (OLD, NEW):
        record = jobs.submit(pool=pool, **EQUAL)
        jobs.succeed(jobs.take(record))
        jobs.queue.delete(record)
        assert jobs.submit(pool=pool, **EQUAL).state is State.QUEUED


def test_a_repeated_request_finds_its_job_whatever_is_served_meanwhile(jobs):
    job = jobs.new(pool=OLD, **EQUAL)
    jobs.succeed(jobs.take(jobs.submit(job)), b"old")
    again = jobs.submit(id=job.id, pool=NEW, **EQUAL)
    assert (again.state, again.pool) == (State.SUCCEEDED, OLD)
    assert jobs.queue.read_result(again, 0, 3) == b"old"


def test_jobs_whose_weights_gave_way_to_others_end_and_are_made_anew_by_the_same_request(jobs):
    job = jobs.new(pool=OLD, **EQUAL)
    record, follower = jobs.submit(job), jobs.submit(pool=OLD, **EQUAL)
    assert follower.primary == record.id
    with serving(jobs, "new"):
        assert ended(jobs, record) == ended(jobs, follower) == "MODEL_CHANGED"
        assert jobs.get(record).state is State.FAILED
        assert jobs.load() == {}
        with pytest.raises(RequestIdReused):
            jobs.submit(id=job.id, pool=NEW, fingerprint="another request")
        anew = jobs.submit(id=job.id, pool=NEW, **EQUAL)
        assert (anew.state, anew.pool, anew.failure) == (State.QUEUED, NEW, None)
        assert jobs.reconcile() == {}
        jobs.succeed(jobs.take(anew), b"new")
        assert jobs.get(record).state is State.SUCCEEDED


def test_all_jobs_of_all_callers_end_a_bounded_number_at_a_time(jobs):
    records = [jobs.submit(pool=OLD, tenant=tenant) for tenant in "abc" for _ in range(4)]
    with serving(jobs, "new"):
        ended(jobs, records[0], limit=5)
        assert sum(jobs.get(it).state.final for it in records) == 5
        for record in records:
            assert ended(jobs, record, limit=5) == "MODEL_CHANGED"
    assert jobs.load() == {}
    assert jobs.queue.stats().queues == {}


def test_a_lost_workers_job_whose_weights_nobody_serves_ends_too(jobs):
    record = jobs.submit(pool=OLD)
    jobs.take(record)
    with serving(jobs, "new"):
        assert ended(jobs, record) == "MODEL_CHANGED"


def test_a_job_that_runs_is_left_to_its_worker(jobs):
    record = jobs.submit(pool=OLD)
    claim = jobs.take(record)
    with serving(jobs, "new"):
        ends = time.monotonic() + 3 * jobs.queue.settings.lease
        while time.monotonic() < ends:
            assert jobs.queue.renew([claim]) == set()
            jobs.reconcile()
            time.sleep(0.05)
        assert jobs.succeed(claim)


def test_a_worker_that_restarts_within_a_lease_is_waited_for(jobs):
    record = jobs.submit(pool=OLD)
    with serving(jobs, "new"):
        for _ in range(3):
            jobs.reconcile()
            time.sleep(0.6 * jobs.queue.settings.lease)
            with serving(jobs, "old"):
                jobs.reconcile()
        assert jobs.get(record).state is State.QUEUED


@pytest.mark.parametrize("served", [None, "old"])
def test_jobs_wait_while_the_model_is_served_by_nobody_or_by_their_own_weights(jobs, served):
    record = jobs.submit(pool=OLD)
    with serving(jobs, served) if served else contextlib.nullcontext(), serving(jobs, "new"):
        jobs.reconcile()
    with serving(jobs, served) if served else contextlib.nullcontext():
        ends = time.monotonic() + 3 * jobs.queue.settings.lease
        while time.monotonic() < ends:
            jobs.reconcile()
            time.sleep(0.05)
        assert jobs.get(record).state is State.QUEUED


def test_jobs_of_another_model_are_no_concern_of_a_change(jobs):
    other = jobs.submit(model="mm", pool="mm@1-1")
    record = jobs.submit(pool=OLD)
    with serving(jobs, "new"):
        assert ended(jobs, record) == "MODEL_CHANGED"
    assert jobs.get(other).state is State.QUEUED


def test_jobs_end_in_a_full_redis_too(jobs):
    record = jobs.submit(pool=OLD)
    with full(jobs.queue.redis), serving(jobs, "new"):
        assert ended(jobs, record) == "MODEL_CHANGED"


def test_what_waits_for_a_model_is_what_waits_for_all_of_its_weights(jobs):
    jobs.submit(pool=OLD)
    time.sleep(0.05)
    for _ in range(2):
        jobs.submit(pool=NEW)
    jobs.submit(model="n")
    queues = jobs.queue.stats().queues
    assert {model: number for model, (number, _) in queues.items()} == {"m": 3, "n": 1}
    assert queues["m"][1] >= 0.05


def test_lost_messages_go_to_the_queue_of_the_weights_again(jobs):
    jobs.submit(pool=OLD)
    jobs.queue.redis.delete(keys.messages(OLD))
    assert jobs.reconcile() == {OLD: 1}
    assert jobs.queue.redis.llen(keys.messages(OLD)) == 1
