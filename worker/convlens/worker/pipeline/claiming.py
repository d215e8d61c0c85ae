"""Claims jobs for all consumers of a worker, so that a job that may kill workers has one to itself.

A worker that is killed reports nothing, so each job that it held may have been the cause. These jobs are suspects from
then on: each is computed by a worker that has no other job, so that of its attempts only the first can have failed
because of another job. This is best effort: isolation ends after ALONE_SECONDS.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from convlens.jobs.queue.celery_events import JobEvents
from convlens.jobs.queue.consumer import Claim, ClaimReply, JobConsumer
from convlens.jobs.queue.lease_renewer import LeaseRenewer

ALONE_SECONDS: Final = 5.0
"""The longest that other jobs wait, first for the worker to become idle, then for the suspect to end."""


class Claimer:
    """One consumer claims at a time. What is claimed is held by the leases."""

    def __init__(self, queue: JobConsumer, leases: LeaseRenewer, events: JobEvents, worker: str) -> None:
        self._queue = queue
        self._leases = leases
        self._events = events
        self._worker = worker
        self._lock = threading.Lock()
        self._suspect_pool: str | None = None
        """The pool in which a suspect waits for this worker to be idle."""
        self._since = 0.0

    def claim(self, pool: str, images: int, many: int, huge: int, permit: str | None = None) -> ClaimReply:
        """As JobConsumer.claim(); nothing while a suspect is computed, or is to be."""
        with self._lock:
            held = self._leases.held()
            now = time.monotonic()
            is_paused = False
            if self._suspect_pool == pool and now - self._since >= ALONE_SECONDS:
                held = []
            elif self._suspect_pool and now - self._since >= 2 * ALONE_SECONDS:  # its pool has not claimed for long
                self._suspect_pool = None
            elif self._suspect_pool not in {None, pool} or any(_is_alone(claim, now) for claim in held):
                is_paused = True
                images = many = huge = 0
            claims = self._queue.claim(pool, self._worker, images, many, huge, permit=permit, is_idle=not held)
            for claim in claims.jobs:
                self._leases.hold(claim)
                self._events.claimed(claim)
            if claims.is_blocked and self._suspect_pool is None:
                self._suspect_pool, self._since = pool, now
            elif not is_paused and self._suspect_pool == pool and not claims.is_blocked:
                self._suspect_pool = None
        return ClaimReply(claims.jobs, is_paused or claims.is_blocked)

    def give_back(self, pool: str, permit: str | None) -> None:
        """Claim nothing, and give back the message that was popped."""
        if permit is not None:
            self._queue.claim(pool, self._worker, 0, 0, 0, permit=permit)

    def wait_for_change(self, seconds: float) -> None:
        """Wait until a job of this worker ends, for so many seconds."""
        self._leases.wait_for_drop(seconds)


def _is_alone(claim: Claim, now: float) -> bool:
    """True for a suspect that was claimed a short while ago."""
    return claim.record.attempts > 1 and now - claim.claimed_at < ALONE_SECONDS
