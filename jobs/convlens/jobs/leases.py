"""Keeps a worker's leases alive, and tells it of jobs that are not its any more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import redis

from convlens.jobs import keys
from convlens.jobs.ledger import Claim, Ledger
from convlens.jobs.notices import Notices

log = logging.getLogger(__name__)


class LeaseKeeper:
    """A thread that renews every claim a third of a lease after the last time, through passing errors of Redis.

    A claim is lost when the job was cancelled, expired or given to another worker: `lost` then says so, at once where
    the notice arrives and otherwise at the next renewal.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._claims: dict[str, Claim] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._notices = Notices(ledger.redis, keys.ENDED, self._heard)

    def start(self) -> None:
        """Begins to renew."""
        self._thread.start()
        self._notices.start()

    def stop(self) -> None:
        """Ends the threads; claims still held are left to their leases."""
        self._stop.set()
        self._thread.join()
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
        with self._lock:
            self._claims.pop(words[0], None)

    def _run(self) -> None:
        while not self._stop.wait(self._ledger.settings.lease / 3):
            claims = self.held()
            try:
                lost = self._ledger.renew(claims) if claims else set()
            except redis.RedisError as error:
                log.warning("cannot renew %d leases: %s", len(claims), error)
                continue
            for claim in claims:
                if claim.record.id in lost:
                    log.info("job=%s is no longer this worker's", claim.record.id)
                    self.drop(claim)
