"""Ends a worker that hangs: its device never comes back from a batch, no message is taken, a background loop is dead.

A thread that hangs cannot be ended, so the process is, for its supervisor to start it again. What was on the device has
used up an attempt; all else that the worker held goes back to its queue at once. Knows nothing of what is computed.
"""

from __future__ import annotations

import faulthandler
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from convlens.jobs.queue.consumer import JobConsumer
from convlens.jobs.queue.lease_renewer import LeaseRenewer
from convlens.jobs.runtime import background
from convlens.jobs.runtime.background import Loop
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.worker.pipeline.batcher import Batcher
from convlens.worker.pipeline.consumer import ConsumerPool
from convlens.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

HUNG: Final = os.EX_SOFTWARE
"""The exit status of a worker that hung."""
UNHEALTHY_SECONDS: Final = 10.0
"""For so long loops must be seen dead or late: after the whole process was stopped, all are late until they get on."""


@dataclass(slots=True)
class _StallTimer:
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
    """Two loops: one looks at the devices and all loops, the other at the queues and may have to wait for Redis.

    The first is watched by a timer of the interpreter's own, which ends the process unless it is set again in time.
    """

    def __init__(
        self,
        queue: JobConsumer,
        leases: LeaseRenewer,
        consumers: ConsumerPool,
        batchers: Mapping[str, Batcher],  # by pool
        settings: WorkerSettings,
    ) -> None:
        self._queue = queue
        self._leases = leases
        self._consumers = consumers
        self._batchers = batchers
        self._settings = settings
        every = min(1.0, settings.device_timeout / 4)
        self._on_device = {pool: _StallTimer(every) for pool in batchers}
        self._unhealthy = _StallTimer(every)
        self._devices = Loop("watchdog", self._look_at_devices, every, at_end=faulthandler.cancel_dump_traceback_later)
        every = min(1.0, settings.delivery_timeout / 4)
        self._untaken = _StallTimer(every)
        self._queues = Loop("watchdog-queues", self._look_at_queues, every)

    def start(self) -> None:
        """Begins to look."""
        self._devices.start()
        self._queues.start()

    def stop(self) -> None:
        """Ends the threads."""
        background.call_together(self._devices.stop, self._queues.stop)

    def _look_at_devices(self) -> None:
        limit = self._settings.device_timeout
        for pool, batcher in self._batchers.items():
            work = batcher.on_device
            if self._on_device[pool].look(work) >= limit:
                jobs = sorted({item.owner.name for item in work})
                self._end(f"pool={pool} jobs={','.join(jobs)} on the device for {limit:g} s", jobs)
        unhealthy = background.unhealthy_loops()
        if self._unhealthy.look(unhealthy) >= UNHEALTHY_SECONDS:
            self._end(f"loops={','.join(unhealthy)} are dead or late")
        faulthandler.dump_traceback_later(limit, exit=True)  # should a call not even let this thread run

    def _look_at_queues(self) -> None:
        limit = self._settings.delivery_timeout
        if self._untaken.look(self._overdue()) >= limit:
            self._end(f"messages waited for {limit:g} s, threads were free, and none was taken")

    def _overdue(self) -> tuple[int] | None:
        """How many messages have been taken so far, while more wait and a thread is free; else None."""
        if self._consumers.is_stopping or not self._consumers.has_free_thread:
            return None
        consumed = self._consumers.messages
        try:
            return (consumed,) if self._queue.messages(self._batchers) else None
        except RedisUnavailable as error:
            log.info("the queues cannot be seen: %s", error)
            return None

    def _end(self, what: str, jobs_on_device: Collection[str] = ()) -> NoReturn:
        log.critical("%s: this process ends with status %d, to be started again; where its threads are:", what, HUNG)
        faulthandler.dump_traceback()
        self._consumers.stop()  # or they would take what is given back
        for claim in self._leases.held():
            try:
                if claim.record.id not in jobs_on_device:
                    self._queue.release(claim)
            except RedisUnavailable as error:
                log.warning("job=%s is left to its lease: %s", claim.record.id, error)
        os._exit(HUNG)
