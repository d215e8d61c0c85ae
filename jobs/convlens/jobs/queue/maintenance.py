"""What looks after the queue: expired jobs and records, lost messages and workers, lost indexes, unused payloads."""

from __future__ import annotations

from typing import Final

import redis

from convlens.jobs.queue import keys, poison
from convlens.jobs.queue.admission import Bounds
from convlens.jobs.queue.client import QueueClient
from convlens.jobs.runtime.settings import JobsSettings

NEARLY_FULL: Final = 0.9
"""The share of Redis' maxmemory beyond which cached results and tombstones are evicted."""
_ROUNDS: Final = 100
"""The most scripts that look for what is due before workers' leases are looked after again."""


class Maintenance(QueueClient):
    """What one elected server does, every reconcile_interval; cached results are held to `bounds`."""

    def __init__(self, client: redis.Redis, settings: JobsSettings, bounds: Bounds) -> None:
        super().__init__(client, settings)
        self.bounds = bounds

    def elect(self, server: str, seconds: float) -> bool:
        """True for the one server that reconciles, until it is silent for so long; with 0 seconds it steps down."""
        return bool(self._run("elect", server=server, ttl=int(seconds * 1000)))

    def reconcile(self, limit: int = 200) -> dict[str, int]:
        """Look once for jobs that lost their message, their worker, their weights or their time, and for old records.

        Returns how many messages were missing, by pool.
        """
        settings = self.settings
        ttls = {**self._ttls, "tombstone_ttl": int(settings.tombstone_ttl * 1000)}
        for _ in range(_ROUNDS):
            if self._run("expire", limit=limit, bounds=self.bounds.script_args(), **ttls) < limit:
                break
        while self._is_nearly_full() and self._evict():
            pass
        lease = int(settings.lease * 1000)
        missing = self._run("reconcile", limit=limit, max_attempts=settings.max_attempts, lease=lease, **self._ttls)
        return {pool.decode(errors="replace"): count for pool, count in zip(missing[::2], missing[1::2], strict=True)}

    def _is_nearly_full(self) -> bool:
        memory = self.redis.info("memory")
        used = memory["used_memory"] - memory.get("mem_not_counted_for_evict", 0)
        return bool(memory["maxmemory"]) and used > NEARLY_FULL * memory["maxmemory"]

    def audit(self, before: str, limit: int = 200) -> str:
        """Put jobs back into indexes that lost them, `limit` at a time, latest first.

        Goes on below the sequence number that it returned last, and begins with "+inf".
        """
        lease = int(self.settings.lease * 1000)
        return str(self._run("audit", before=before, limit=limit, lease=lease).decode())

    def collect_garbage(self, limit: int = 500, pieces: int = 20) -> None:
        """Delete payloads of jobs that have ended or were deleted, no more than `pieces` times `limit`."""
        for _ in range(pieces):
            names = self.redis.lpop(keys.GARBAGE, limit)
            if not names:
                break
            self._dispose([name.decode(errors="replace") for name in names])
        self.payloads.sweep()

    def report_poisoned(self) -> None:
        """Report the entries that scripts have quarantined."""
        poison.report_quarantined(self.redis)
