"""Consumer threads: each claims jobs of one model, has them decoded while the device computes, and commits them.

A Celery message starts a consumer. It claims as long as there are jobs, in fair order; with none left it blocks on the
list of messages itself, so that the next job starts in one hop, and after IDLE_SECONDS it returns to Celery.

Large jobs, of many passes, pixels or bytes, hold nobody up: each consumer computes one at a time of each kind in a
thread apart, and what those of many passes or bytes hold of arrays together is bounded.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Final

from convlens.jobs.queue import keys
from convlens.jobs.queue.consumer import Claim, JobConsumer
from convlens.jobs.queue.subscriber import Subscriber
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.worker.pipeline.claiming import Claimer
from convlens.worker.pipeline.committer import Committer, take_computed
from convlens.worker.pipeline.decoder import Decoder, planned
from convlens.worker.pipeline.in_flight import InFlightJob, Serving
from convlens.worker.pipeline.memory_budget import Budget
from convlens.worker.pipeline.outcome import Outcomes

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 0.5
"""A consumer that has waited so long returns to Celery."""
LARGE_KINDS: Final = keys.KINDS[1:]
"""Those that take minutes on the device do not keep those waiting that take seconds to decode."""


class Consumers:
    """The consumer threads of a worker, `most` for a model. Called with a pool and a kind of list for each message.

    For a message beyond these an extra consumer starts, which returns as soon as its jobs have ended.
    """

    def __init__(
        self,
        queue: JobConsumer,
        claimer: Claimer,
        decoder: Decoder,
        committer: Committer,
        outcomes: Outcomes,
        models: Iterable[Serving],
        most: int,
        working: Budget,
    ) -> None:
        self.queue = queue
        self.claimer = claimer
        self.decoder = decoder
        self.committer = committer
        self.outcomes = outcomes
        self.working = working
        self.messages = 0
        """How many have been taken from lists."""
        self._models = {model.pool: model for model in models}
        self._most = most
        self._active = dict.fromkeys(self._models, 0)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._at_list = {pool: threading.Lock() for pool in self._models}
        self._new_flows = Subscriber(queue.redis, keys.NEW_FLOWS, self._on_new_flow)

    @property
    def is_stopping(self) -> bool:
        """True when nothing more is claimed."""
        return self._stopping.is_set()

    @property
    def has_free_thread(self) -> bool:
        """True when a message would start a consumer."""
        return sum(self._active.values()) < self._most * len(self._models)

    def start(self) -> None:
        """Begin to listen for newly active flows."""
        self._new_flows.start()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping.set()

    def close(self) -> None:
        """End the thread, once all consumers have returned."""
        self._new_flows.stop()

    def __call__(self, pool: str, kind: str) -> None:
        """Consume jobs of a pool, for a message that was popped from its list of a kind, until there are none."""
        model = self._models[pool]
        with self._lock:
            self.messages += 1
            is_extra = self._active[pool] >= self._most
            self._active[pool] += 1
        try:
            with ThreadPoolExecutor(len(LARGE_KINDS), thread_name_prefix="large") as apart:
                Consumer(self, model, apart, is_extra=is_extra).run(kind)
        finally:
            with self._lock:
                self._active[pool] -= 1

    def next_message(self, model: Serving, kinds: Sequence[str]) -> str | None:
        """Wait for a message of one of these kinds, one thread of a model at a time; its kind, or None without one."""
        with self._turn_at_list(model.pool) as has_turn:
            if not (has_turn and model.limit.wait(IDLE_SECONDS)):
                return None
            kind = self.queue.next_message(model.pool, kinds, IDLE_SECONDS)
        if kind is not None:
            with self._lock:
                self.messages += 1
        return kind

    @contextlib.contextmanager
    def _turn_at_list(self, pool: str) -> Iterator[bool]:
        lock = self._at_list[pool]
        has_turn = lock.acquire(timeout=IDLE_SECONDS)
        try:
            yield has_turn
        finally:
            if has_turn:
                lock.release()

    def _on_new_flow(self, message: Sequence[str]) -> None:
        if model := self._models.get(message[0]):
            model.limit.overcommit()


class Consumer:
    """One of them, in a thread of Celery's pool. An extra one returns once it has done what its message led it to."""

    def __init__(self, consumers: Consumers, model: Serving, apart: Executor, *, is_extra: bool) -> None:
        self._consumers = consumers
        self._claimer = consumers.claimer
        self._model = model
        self._apart = apart
        self._is_extra = is_extra
        self._in_flight: list[InFlightJob] = []
        self._large: dict[str, Future[None]] = {}

    def run(self, kind: str) -> None:
        """Claim and compute until there is nothing to do, beginning with a message of a kind."""
        permit: str | None = kind
        try:
            while True:
                has_more = self._claim(permit)
                permit = None
                self._commit(has_more)
                if self._consumers.is_stopping:
                    return
                if not self._in_flight and not has_more:
                    while permit is None:
                        free = self._free_kinds()
                        if self._is_extra or self._consumers.is_stopping:
                            return
                        permit = self._consumers.next_message(self._model, free)
                        if permit is None and len(free) == len(keys.KINDS):
                            return
        except RedisUnavailable as error:
            log.warning("model=%s no jobs could be claimed: %s; they come again", self._model.card.name, error)
        finally:
            while self._in_flight:
                self._consumers.committer.commit(take_computed(self._in_flight))

    def _free_kinds(self) -> list[str]:
        """The kinds of jobs that may be started: all but those of large jobs under way."""
        return [kind for kind in keys.KINDS if kind not in self._large or self._large[kind].done()]

    def _claim(self, permit: str | None) -> bool:
        """Claim as many jobs as may be in flight and start them; True when there may be more of them.

        Waits until some may, or a job in flight is to be committed. Large ones do not count: others go on meanwhile.
        """
        free = self._free_kinds()
        many, huge = (int(kind in free) for kind in LARGE_KINDS)
        if self._consumers.is_stopping:
            self._claimer.give_back(self._model.pool, permit)
            return False
        with self._model.limit.reserve(lambda: any(job.is_computed for job in self._in_flight)) as reservation:
            if not reservation.images:
                return True
            claims = self._claimer.claim(self._model.pool, reservation.images, many, huge, permit)
            small = [claim for claim in claims.jobs if not claim.record.is_large]
            reservation.used = sum(len(claim.images) for claim in small)
        for claim in claims.jobs:
            if claim.record.is_large:
                self._large[claim.record.kind] = self._apart.submit(self._compute_large, claim)
        self._in_flight += self._consumers.decoder.start(self._model, small)
        if claims.is_blocked:  # what is in flight ends first, and then what others have
            if not self._in_flight:
                self._claimer.wait_for_change(IDLE_SECONDS)
            return not self._in_flight
        return reservation.used >= reservation.images

    def _commit(self, has_more: bool) -> None:
        """Commit what is computed; all in flight where nothing else is to be done, or too much is in flight."""
        jobs = self._in_flight
        while jobs and (
            not has_more
            or any(job.is_computed for job in jobs)
            or sum(job.images for job in jobs) > self._model.limit.images
        ):
            self._consumers.committer.commit(take_computed(jobs))

    def _compute_large(self, claim: Claim) -> None:
        """Compute a large job, then others of its kind as long as there are any."""
        kind = claim.record.kind
        many, huge = (int(kind == large) for large in LARGE_KINDS)
        claims = [claim]
        try:
            while claims:
                self._compute_one(claims[0])
                if self._consumers.is_stopping or self._is_extra:
                    return
                claims = self._claimer.claim(self._model.pool, 0, many, huge).jobs
        except RedisUnavailable as error:
            log.warning("model=%s no jobs could be claimed: %s; they come again", self._model.card.name, error)

    def _compute_one(self, claim: Claim) -> None:
        """Compute a large job, from its images to its end; one of many bytes when there is memory for them.

        A job that is large to decode alone is made of fewer than LARGE_BYTES, and waits for no other's.
        """
        outcomes = self._consumers.outcomes
        plan = outcomes.guard(claim, lambda: planned(claim, self._model.card))
        if plan is None:
            return
        is_many = claim.record.kind == "many"
        try:
            with self._consumers.working.reserve(plan.working_bytes) if is_many else nullcontext():
                self._consumers.committer.commit(self._consumers.decoder.start(self._model, [claim]))
        except RedisUnavailable as error:
            outcomes.left(claim, error)
