"""Renews the leases of a worker's jobs, and tracks which jobs it has lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from convlens.jobs.queue import keys
from convlens.jobs.queue.consumer import Claim, JobConsumer
from convlens.jobs.queue.record import State
from convlens.jobs.queue.subscriber import Subscriber
from convlens.jobs.runtime.background import Loop, call_together

log = logging.getLogger(__name__)


class LeaseRenewer:
    """A loop that renews every claim a third of a lease after the last time, through passing errors of Redis.

    A claim is lost when the job was cancelled, expired or given to another worker: `is_lost` is true then, at once when
    the notification arrives, else from the next renewal on.
    """

    def __init__(self, queue: JobConsumer) -> None:
        self._queue = queue
        self._claims: dict[str, Claim] = {}
        self._lock = threading.Lock()
        self._loop = Loop("leases", self._renew, queue.settings.lease / 3)
        self._ends = Subscriber(queue.redis, keys.ENDED, self._on_end)
        self._dropped = threading.Condition(self._lock)

    def start(self) -> None:
        """Begin to renew."""
        self._loop.start()
        self._ends.start()

    def stop(self) -> None:
        """End the threads; claims still held are left to their leases."""
        call_together(self._loop.stop, self._ends.stop)

    def hold(self, claim: Claim) -> None:
        """Renew this claim from now on."""
        with self._lock:
            self._claims[claim.record.id] = claim

    def drop(self, claim: Claim) -> None:
        """Renew it no more."""
        with self._lock:
            if self._claims.get(claim.record.id) is claim:
                del self._claims[claim.record.id]
            self._dropped.notify_all()

    def wait_for_drop(self, seconds: float) -> None:
        """Wait until a claim is dropped, for so many seconds."""
        with self._lock:
            self._dropped.wait(seconds)

    def held(self) -> list[Claim]:
        """All claims that are renewed."""
        with self._lock:
            return list(self._claims.values())

    def is_lost(self, claim: Claim) -> bool:
        """True when the job is no longer this worker's to compute."""
        with self._lock:
            return self._claims.get(claim.record.id) is not claim

    def _on_end(self, message: Sequence[str]) -> None:
        job_id, state, *_ = message
        if State(int(state)).final:
            with self._lock:
                self._claims.pop(job_id, None)
                self._dropped.notify_all()

    def _renew(self) -> None:
        claims = self.held()
        lost = self._queue.renew(claims) if claims else set()
        for claim in claims:
            if claim.record.id in lost:
                log.info("job=%s is no longer this worker's", claim.record.id)
                self.drop(claim)
