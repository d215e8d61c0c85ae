"""Ends a worker that hangs: one whose device never comes back from a batch, or that takes no message though it could.

A thread that hangs cannot be ended, so the process is, for its supervisor to start it again. What was on the device has
used up an attempt; all else that the worker held goes back to its queue at once. Knows nothing of what is computed.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from convlens.jobs.connect import LedgerUnavailable
from convlens.jobs.hands import Hands
from convlens.jobs.leases import LeaseKeeper
from convlens.jobs.ledger import Ledger
from convlens.worker.batcher import Batcher
from convlens.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

HUNG: Final = os.EX_SOFTWARE
"""The exit status of a worker that hung."""


@dataclass(slots=True)
class _Unchanged:
    """For how long something that should change has not; time in which the whole process was stopped does not count."""

    every: float
    """Seconds between two looks."""
    seen: object = None
    seconds: float = 0.0

    def look(self, now: object) -> float:
        """Seconds for which it has been as it is `now`; none where it is nothing."""
        self.seconds = self.seconds + self.every if now and now == self.seen else 0.0
        self.seen = now
        return self.seconds


class Watchdog:
    """Two threads, one that looks at the devices and one that looks at the queues, which may have to wait for Redis."""

    def __init__(
        self,
        ledger: Ledger,
        leases: LeaseKeeper,
        hands: Hands,
        batchers: Mapping[str, Batcher],  # by pool
        settings: WorkerSettings,
    ) -> None:
        self._ledger = ledger
        self._leases = leases
        self._hands = hands
        self._batchers = batchers
        self._settings = settings
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=it, name="watchdog", daemon=True) for it in (self._devices, self._queues)
        ]

    def start(self) -> None:
        """Begins to look."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _devices(self) -> None:
        limit = self._settings.device_timeout
        every = min(1.0, limit / 4)
        unchanged = {pool: _Unchanged(every) for pool in self._batchers}
        while not self._stop.wait(every):
            faulthandler.dump_traceback_later(limit, exit=True)  # should a call not even let this thread run
            for pool, batcher in self._batchers.items():
                work = batcher.on_device
                if unchanged[pool].look(work) >= limit:
                    jobs = sorted({it.owner.name for it in work})
                    self._end(f"pool={pool} jobs={','.join(jobs)} on the device for {limit:g} s", jobs)
        faulthandler.cancel_dump_traceback_later()

    def _queues(self) -> None:
        limit = self._settings.delivery_timeout
        every = min(1.0, limit / 4)
        unchanged = _Unchanged(every)
        while not self._stop.wait(every):
            if unchanged.look(self._owed()) >= limit:
                self._end(f"messages waited for {limit:g} s, threads were free, and none was taken")

    def _owed(self) -> tuple[int] | None:
        """How many messages have come so far, while more are there and would find a thread; else None."""
        if self._hands.stopping or self._hands.awake >= self._settings.hands * len(self._batchers):
            return None
        come = self._hands.messages
        try:
            return (come,) if self._ledger.announced(self._batchers) else None
        except LedgerUnavailable as error:
            log.info("the queues cannot be seen: %s", error)
            return None

    def _end(self, what: str, guilty: Collection[str] = ()) -> NoReturn:
        log.critical("%s: this process ends with status %d, to be started again; where its threads are:", what, HUNG)
        faulthandler.dump_traceback()
        self._hands.stop()  # or they would take what is given back
        try:
            for claim in self._leases.held():
                if claim.record.id not in guilty:
                    self._ledger.release(claim)
        except LedgerUnavailable as error:
            log.warning("jobs are left to their leases: %s", error)
        os._exit(HUNG)
