"""Consumer threads: each claims jobs of one model, decodes their images and submits them to the model's batcher.

A Celery message starts a consumer. It claims as long as there are jobs, in fair order; with none left it blocks on the
list of messages itself, so that the next job starts in one hop, and after IDLE_SECONDS it returns to Celery.

A quick job that is the only one of its model is ended by its consumer itself, which stays at the list meanwhile: the
threads of an otherwise idle worker would get into each other's way. That takes 6 % off the time of one call.

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
from convlens.jobs.queue.consumer import Claim, JobConsumer
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
"""A consumer that has waited so long returns to Celery."""
QUICK_PIXELS: Final = 1 << 17
"""Pixels that are decoded within about a millisecond."""
QUICK_SECONDS: Final = 0.002
"""The longest that nobody waits at the list because of a quick job."""
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
        self.messages = 0
        """How many have been taken from lists."""
        self._models = {model.pool: model for model in models}
        self.large_jobs = ThreadPoolExecutor(most * len(self._models) * len(LARGE_KINDS), "large")
        self._most = most
        self._active = dict.fromkeys(self._models, 0)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._at_list = {pool: threading.Lock() for pool in self._models}
        """By pool: held by the consumer that waits at the lists, or has the turn to."""
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
        """End the threads, once all consumers have returned."""
        self._new_flows.stop()
        self.large_jobs.shutdown()

    def __call__(self, pool: str, kind: str) -> None:
        """Consume jobs of a pool, for a message that was popped from its list of a kind, until there are none."""
        model = self._models[pool]
        with self._lock:
            self.messages += 1
            is_extra = self._active[pool] >= self._most
            self._active[pool] += 1
        try:
            Consumer(self, model, is_extra=is_extra).run(kind)
        finally:
            with self._lock:
                self._active[pool] -= 1

    def turn(self, pool: str) -> Turn:
        """Return a consumer's turn at the lists of a pool, to be taken."""
        return Turn(self._at_list[pool])

    def next_message(self, model: LoadedModel, kinds: Sequence[str], turn: Turn) -> str | None:
        """Take the turn and wait for a message of one of these kinds; its kind, or None without one.

        The turn is kept with a message, and passed on without one.
        """
        kind = None
        if turn.take(IDLE_SECONDS) and model.limit.wait(IDLE_SECONDS):
            kind = self.queue.next_message(model.pool, kinds, IDLE_SECONDS)
        if kind is None:
            turn.pass_on()
        else:
            with self._lock:
                self.messages += 1
        return kind

    def _on_new_flow(self, message: Sequence[str]) -> None:
        if model := self._models.get(message[0]):
            model.limit.overcommit()


class Turn:
    """A consumer's turn at its model's lists, where one consumer waits at a time."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._is_held = False

    def take(self, seconds: float) -> bool:
        """Wait for the turn, for so many seconds; whether it is held."""
        self._is_held = self._is_held or self._lock.acquire(timeout=seconds)
        return self._is_held

    def pass_on(self) -> None:
        """Let another consumer take the turn, if it is held."""
        if self._is_held:
            self._is_held = False
            self._lock.release()


class Consumer:
    """One consumer, in a thread of Celery's pool. An extra one claims once and returns."""

    def __init__(self, consumers: ConsumerPool, model: LoadedModel, *, is_extra: bool) -> None:
        self._consumers = consumers
        self._claimer = consumers.claimer
        self._model = model
        self._is_extra = is_extra
        self._large: dict[str, Future[None]] = {}
        self._turn = consumers.turn(model.pool)

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
            self._turn.pass_on()
            wait(self._large.values())

    def _next_message(self) -> str | None:
        """Wait for a message and return its kind; None once nothing is under way and none has come for a while."""
        while not self._consumers.is_stopping:
            is_idle, messages = not self._model.limit.is_used, self._consumers.messages
            free = self._free_kinds()
            kind = self._consumers.next_message(self._model, free, self._turn)
            is_idle &= self._consumers.messages == messages
            if kind is not None or (is_idle and len(free) == len(keys.KINDS)):
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
            is_alone = len(claims.jobs) == 1 and reservation.images == self._model.limit.images
        if is_alone and small and small[0].record.pixels <= QUICK_PIXELS:
            self._end_quick(small)
        else:
            self._turn.pass_on()
            for claim in claims.jobs:
                if claim.record.is_large:
                    self._large[claim.record.kind] = self._consumers.large_jobs.submit(self._compute_large, claim)
            self._end_elsewhere(self._consumers.decoder.submit(self._model, small))
        if claims.is_blocked:  # what this worker holds ends first
            self._claimer.wait_for_change(IDLE_SECONDS)
            return True
        return reservation.used >= reservation.images

    def _end_quick(self, claims: Sequence[Claim]) -> None:
        """Compute the only job of its model and end it; leave that to other threads where the device takes long."""
        jobs = [*self._consumers.decoder.submit(self._model, claims)]
        if wait([piece for job in jobs for piece in job.pieces], QUICK_SECONDS).not_done:
            self._turn.pass_on()
            self._end_elsewhere(jobs)
        else:
            self._consumers.committer.commit(jobs)

    def _end_elsewhere(self, jobs: Iterable[InFlightJob]) -> None:
        """Have jobs ended by the committer's threads once they are computed."""
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
