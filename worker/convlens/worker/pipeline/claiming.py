"""Claims jobs for all hands of a worker, so that a job that may kill workers has one to itself.

A worker that is killed can say nothing any more, so whatever it held may have been the reason. Each of these jobs is a
suspect from then on: it is computed by a worker that has nothing else in hand, so that of several attempts only the
first one can be another job's fault.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from convlens.jobs.queue.hands import Hand, Then
from convlens.jobs.queue.lease_renewer import LeaseKeeper
from convlens.jobs.queue.ledger import Claim, Ledger

ALONE_SECONDS: Final = 5.0
"""For so long others wait until the worker is idle for a suspect, and until the suspect has ended; then they go on."""


class Claimer:
    """One hand claims at a time. What is claimed is held by the leases."""

    def __init__(self, ledger: Ledger, leases: LeaseKeeper, worker: str) -> None:
        self._ledger = ledger
        self._leases = leases
        self._worker = worker
        self._lock = threading.Lock()
        self._suspect_of: str | None = None
        """The pool in which a suspect waits for this worker to be idle."""
        self._since = 0.0

    def claim(self, pool: str, images: int, hand: Hand, then: Then, many: int, huge: int) -> list[Claim]:
        """As Ledger.claim(); none while a suspect is computed, or is to be."""
        with self._lock:
            held = self._leases.held()
            now = time.monotonic()
            if self._suspect_of and now - self._since >= ALONE_SECONDS:
                held = []
            elif self._suspect_of not in {None, pool} or any(_is_alone(claim, now) for claim in held):
                images = 0
            found = self._ledger.claim(pool, self._worker, images, hand.name, then, many, huge, is_idle=not held)
            for claim in found.jobs:
                self._leases.hold(claim)
            if found.suspect_waits and self._suspect_of is None:
                self._suspect_of, self._since = pool, now
            elif images and self._suspect_of == pool and not found.suspect_waits:
                self._suspect_of = None
        return found.jobs

    def tell(self, pool: str, hand: Hand, then: Then) -> None:
        """Claims nothing, and says what the hand will do."""
        self._ledger.claim(pool, self._worker, 0, hand.name, then)


def _is_alone(claim: Claim, now: float) -> bool:
    """True for a suspect that was claimed a short while ago."""
    return claim.record.attempts > 1 and now - claim.taken < ALONE_SECONDS
