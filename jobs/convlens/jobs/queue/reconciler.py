"""The reconciler looks after the queue: what lost its message, worker, weights, index or time, and unused payloads.

One server at a time does it, elected in Redis; the others stand by.
"""

from __future__ import annotations

import logging
import uuid
from typing import Final

import redis

from convlens.jobs.queue import keys, poison
from convlens.jobs.queue.admission import Bounds
from convlens.jobs.queue.client import QueueClient
from convlens.jobs.runtime.background import Loop, call_together
from convlens.jobs.runtime.settings import JobsSettings

log = logging.getLogger(__name__)

NEARLY_FULL: Final = 0.9
"""The share of Redis' maxmemory beyond which cached results and tombstones are evicted."""
_ROUNDS: Final = 100
"""The most scripts that look for what is due before workers' leases are looked after again."""


class Reconciler(QueueClient):
    """Loops that repair the queue and delete unused payloads, every `reconcile_interval`, while this server is elected.

    Cached results are held to `bounds`.
    """

    def __init__(self, client: redis.Redis, settings: JobsSettings, bounds: Bounds) -> None:
        super().__init__(client, settings)
        self.bounds = bounds
        self._name = uuid.uuid4().hex
        self._is_elected = False
        self._audited = "+inf"
        """The sequence number below which the next audit goes on."""
        self._loops = (
            Loop("reconciler", self._run_round, settings.reconcile_interval, at_end=self._step_down),
            Loop("collector", self._collect_if_elected, settings.reconcile_interval),
        )

    def start(self) -> None:
        """Begin."""
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """End the threads and let another server take over at once."""
        call_together(*(loop.stop for loop in self._loops))

    def _run_round(self) -> None:
        self._is_elected = False
        self._is_elected = self.elect(self._name, 5 * self.settings.reconcile_interval + 5)
        if not self._is_elected:
            return
        for pool, messages in self.reconcile().items():
            log.info("pool=%s %d messages were missing", pool, messages)
        self._audited = self.audit(self._audited)
        poison.report_quarantined(self.redis)

    def _collect_if_elected(self) -> None:
        if self._is_elected:
            self.collect_garbage()

    def _step_down(self) -> None:
        self.elect(self._name, 0)

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
            if self._run("expire", limit=limit, bounds=self.bounds.script_args, **ttls) < limit:
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
