"""Consumer threads: each claims jobs of one model, decodes their images and submits them to the model's batcher.

A Celery message starts a consumer. It claims as long as there are jobs, in fair order; with none left it blocks on the
list of messages itself, so that the next job starts in one hop. When its model had none for IDLE_SECONDS, it returns to
Celery.

A consumer computes and commits a lone quick job in its own thread, and keeps the right to listen meanwhile: no other
thread wakes up to compete for the interpreter's lock. That takes 6 % off the time of one call.

Large jobs, of many passes, pixels or bytes, hold nobody up: each consumer has at most one of each kind computed, in a
thread of a pool of their own, and what those of many passes or bytes hold of arrays together is bounded.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import Final

from convlens.jobs.queue import keys
from convlens.jobs.queue.consumer import Claim, ClaimReply, JobConsumer
from convlens.jobs.queue.subscriber import Subscriber
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.v1.request.plan import resolve_serialized
from convlens.worker.pipeline.claiming import Claimer
from convlens.worker.pipeline.committer import Committer
from convlens.worker.pipeline.decoder import Decoder
from convlens.worker.pipeline.in_flight import InFlightJob, LoadedModel
from convlens.worker.pipeline.limits import Budget
from convlens.worker.pipeline.outcome import Outcomes

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 0.5
"""A consumer returns to Celery when for so long nobody received a message of its model."""
QUICK_PIXELS: Final = 1 << 17
"""Of the images of a quick job: decoded within about a millisecond."""
QUICK_BYTES: Final = 1 << 20
"""Of a quick job's result."""
QUICK_SECONDS: Final = 0.002
"""How long a consumer waits for the device before it leaves a quick job to the committer."""
LARGE_KINDS: Final = keys.KINDS[1:]
"""Kinds of jobs that are computed in other threads, one of each kind at a time for each consumer."""


class ConsumerPool:
    """The consumer threads of a worker, `most` for a model. Called with a pool and a kind of list for each message.

    For a message beyond these an extra consumer starts, which claims once and returns.
    """

    def __init__(
        self,
        queue: JobConsumer,
        claimer: Claimer,
        decoder: Decoder,
        committer: Committer,
        outcomes: Outcomes,
        models: Iterable[LoadedModel],
        most: int,
        working: Budget,
    ) -> None:
        self.queue = queue
        self.claimer = claimer
        self.decoder = decoder
        self.committer = committer
        self.outcomes = outcomes
        self.working = working
        self._models = {model.pool: model for model in models}
        self.large_jobs = ThreadPoolExecutor(most * len(self._models) * len(LARGE_KINDS), "large")
        self._most = most
        self._active = dict.fromkeys(self._models, 0)
        self._received = dict.fromkeys(self._models, 0)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listening = {pool: threading.Lock() for pool in self._models}
        self._new_flows = Subscriber(queue.redis, keys.NEW_FLOWS, self._on_new_flow)

    @property
    def is_stopping(self) -> bool:
        """True when nothing more is claimed."""
        return self._stopping.is_set()

    @property
    def has_free_thread(self) -> bool:
        """True when a message would start a consumer."""
        return sum(self._active.values()) < self._most * len(self._models)

    @property
    def messages(self) -> int:
        """How many messages have been received."""
        return sum(self._received.values())

    def start(self) -> None:
        """Begin to listen for newly active flows."""
        self._new_flows.start()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping.set()

    def close(self) -> None:
        """End the threads, once all consumers have returned."""
        self._new_flows.stop()
        self.large_jobs.shutdown()

    def __call__(self, pool: str, kind: str) -> None:
        """Consume jobs of a pool, for a message that was popped from its list of a kind, until there are none."""
        model = self._models[pool]
        with self._lock:
            self._received[pool] += 1
            is_extra = self._active[pool] >= self._most
            self._active[pool] += 1
        try:
            Consumer(self, model, is_extra=is_extra).run(kind)
        finally:
            with self._lock:
                self._active[pool] -= 1

    def new_listen_lock(self, pool: str) -> ListenLock:
        """Return a consumer's handle of the lock of a pool's lists."""
        return ListenLock(self._listening[pool])

    def received(self, pool: str) -> int:
        """Return how many messages of a pool have been received."""
        return self._received[pool]

    def next_message(self, model: LoadedModel, kinds: Sequence[str], lock: ListenLock) -> str | None:
        """Acquire the lock and wait for a message of one of these kinds; its kind, or None without one.

        The lock stays acquired with a message, and is released without one.
        """
        kind = None
        if lock.acquire(IDLE_SECONDS) and model.limit.wait(IDLE_SECONDS):
            kind = self.queue.next_message(model.pool, kinds, IDLE_SECONDS)
        if kind is None:
            lock.release()
        else:
            with self._lock:
                self._received[model.pool] += 1
        return kind

    def _on_new_flow(self, message: Sequence[str]) -> None:
        if model := self._models.get(message[0]):
            model.limit.overcommit()


class ListenLock:
    """A consumer's handle of a lock: only the consumer that has acquired it waits for messages of its model."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._is_acquired = False

    def acquire(self, seconds: float) -> bool:
        """Acquire the lock unless this consumer has it already; False where that takes longer than so many seconds."""
        self._is_acquired = self._is_acquired or self._lock.acquire(timeout=seconds)
        return self._is_acquired

    def release(self) -> None:
        """Release the lock if this consumer has it."""
        if self._is_acquired:
            self._is_acquired = False
            self._lock.release()


class Consumer:
    """One consumer, in a thread of Celery's pool. An extra one claims once and returns."""

    def __init__(self, consumers: ConsumerPool, model: LoadedModel, *, is_extra: bool) -> None:
        self._consumers = consumers
        self._claimer = consumers.claimer
        self._model = model
        self._is_extra = is_extra
        self._large: dict[str, Future[None]] = {}
        self._listen_lock = consumers.new_listen_lock(model.pool)

    def run(self, kind: str) -> None:
        """Claim until there is nothing to claim, beginning with a message of a kind."""
        permit: str | None = kind
        try:
            while permit is not None:
                while self._claim(permit):
                    permit = None
                permit = None if self._is_extra else self._next_message()
        except RedisUnavailable as error:
            log.warning("model=%s no jobs could be claimed: %s; they come again", self._model.card.name, error)
        finally:
            self._listen_lock.release()
            wait(self._large.values())

    def _next_message(self) -> str | None:
        """Wait for a message and return its kind; None once nothing is under way and none has come for a while."""
        while not self._consumers.is_stopping:
            free = self._free_kinds()
            is_idle = not self._model.limit.is_used and len(free) == len(keys.KINDS)
            received = self._consumers.received(self._model.pool)
            kind = self._consumers.next_message(self._model, free, self._listen_lock)
            if kind is not None or (is_idle and self._consumers.received(self._model.pool) == received):
                return kind
        return None

    def _free_kinds(self) -> list[str]:
        """Return the kinds of jobs that may be started: all but those of large jobs under way."""
        return [kind for kind in keys.KINDS if kind not in self._large or self._large[kind].done()]

    def _claim(self, permit: str | None) -> bool:
        """Claim as many jobs as may be in flight and start them; True when there may be more of them.

        Waits until some may. Large ones do not count: others go on meanwhile.
        """
        with self._model.limit.reserve() as reservation:
            if self._consumers.is_stopping:
                self._claimer.give_back(self._model.pool, permit)
                return False
            free = self._free_kinds()
            many, huge = (int(kind in free) for kind in LARGE_KINDS)
            claims = self._claimer.claim(self._model.pool, reservation.images, many, huge, permit)
            small = [claim for claim in claims.jobs if not claim.record.is_large]
            reservation.used = sum(len(claim.images) for claim in small)
        listens_to_all = len(free) == len(keys.KINDS)  # or the lock would keep others from messages of the rest
        if listens_to_all and reservation.images == self._model.limit.images and self._is_quick(claims):
            self._compute_and_commit(small)
        else:
            self._listen_lock.release()
            for claim in claims.jobs:
                if claim.record.is_large:
                    self._large[claim.record.kind] = self._consumers.large_jobs.submit(self._compute_large, claim)
            self._hand_to_committer(self._consumers.decoder.submit(self._model, small))
        if claims.is_blocked:  # what this worker holds ends first
            self._claimer.wait_for_change(IDLE_SECONDS)
            return True
        return reservation.used >= reservation.images

    def _is_quick(self, claims: ClaimReply) -> bool:
        """Return whether a single quick job was claimed, whose payloads are in this machine's memory."""
        if len(claims.jobs) != 1 or claims.is_blocked or self._consumers.queue.payloads.may_block:
            return False
        record = claims.jobs[0].record
        return not record.is_large and record.pixels <= QUICK_PIXELS

    def _compute_and_commit(self, claims: Sequence[Claim]) -> None:
        """Compute and commit a quick job; leave the rest to the committer where it takes longer than expected."""
        jobs = [*self._consumers.decoder.submit(self._model, claims)]
        is_small = all(job.plan.result_bytes <= QUICK_BYTES for job in jobs)
        if is_small and not wait([piece for job in jobs for piece in job.pieces], QUICK_SECONDS).not_done:
            self._consumers.committer.commit(jobs)
        else:
            self._listen_lock.release()
            self._hand_to_committer(jobs)

    def _hand_to_committer(self, jobs: Iterable[InFlightJob]) -> None:
        """Have jobs committed by the committer's threads once they are computed."""
        for job in jobs:
            job.call_when_computed(self._consumers.committer.put)

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
        plan = outcomes.guard(claim, lambda: resolve_serialized(claim.spec, self._model.card))
        if plan is None:
            return
        is_many = claim.record.kind == "many"
        try:
            with self._consumers.working.reserve(plan.working_bytes) if is_many else nullcontext():
                self._consumers.committer.commit([*self._consumers.decoder.submit(self._model, [claim])])
        except RedisUnavailable:  # the decoder has left the job
            raise
        except Exception as error:
            log.exception("job=%s", claim.record.id)
            outcomes.leave(claim, error)
