"""Keeps a worker's leases alive, and tells it of jobs that are not its any more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from convlens.jobs.queue import keys
from convlens.jobs.queue.ledger import Claim, Ledger
from convlens.jobs.queue.record import State
from convlens.jobs.queue.subscriber import Notices
from convlens.jobs.runtime.background import Loop

log = logging.getLogger(__name__)


class LeaseKeeper:
    """A loop that renews every claim a third of a lease after the last time, through passing errors of Redis.

    A claim is lost when the job was cancelled, expired or given to another worker: `lost` then says so, at once where
    the notice arrives and otherwise at the next renewal.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._claims: dict[str, Claim] = {}
        self._lock = threading.Lock()
        self._loop = Loop("leases", self._renew, ledger.settings.lease / 3)
        self._notices = Notices(ledger.redis, keys.ENDED, self._heard)

    def start(self) -> None:
        """Begins to renew."""
        self._loop.start()
        self._notices.start()

    def stop(self) -> None:
        """Ends the threads; claims still held are left to their leases."""
        self._loop.stop()
        self._notices.stop()

    def hold(self, claim: Claim) -> None:
        """Renews this claim from now on."""
        with self._lock:
            self._claims[claim.record.id] = claim

    def drop(self, claim: Claim) -> None:
        """Renews it no more."""
        with self._lock:
            if self._claims.get(claim.record.id) is claim:
                del self._claims[claim.record.id]

    def held(self) -> list[Claim]:
        """All claims that are renewed."""
        with self._lock:
            return list(self._claims.values())

    def lost(self, claim: Claim) -> bool:
        """True when the job is no longer this worker's to compute."""
        with self._lock:
            return self._claims.get(claim.record.id) is not claim

    def _heard(self, words: Sequence[str]) -> None:
        job_id, state, *_ = words
        if State(int(state)).final:
            with self._lock:
                self._claims.pop(job_id, None)

    def _renew(self) -> None:
        claims = self.held()
        lost = self._ledger.renew(claims) if claims else set()
        for claim in claims:
            if claim.record.id in lost:
                log.info("job=%s is no longer this worker's", claim.record.id)
                self.drop(claim)
