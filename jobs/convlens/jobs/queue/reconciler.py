"""The reconciler: delivers again what lost its message or its worker, and ends what lost its weights or its time.

One server at a time does it, elected in Redis; the others stand by.
"""

from __future__ import annotations

import logging
import uuid

from convlens.jobs.queue.maintenance import Maintenance
from convlens.jobs.runtime.background import Loop, call_together

log = logging.getLogger(__name__)


class Reconciler:
    """Loops that run the maintenance of the queue and delete unused payloads, every `reconcile_interval`."""

    def __init__(self, maintenance: Maintenance) -> None:
        self._maintenance = maintenance
        self._interval = interval = maintenance.settings.reconcile_interval
        self._name = uuid.uuid4().hex
        self._is_elected = False
        self._audited = "+inf"
        """The sequence number below which the next audit goes on."""
        self._loops = (
            Loop("reconciler", self._reconcile, interval, at_end=self._step_down),
            Loop("collector", self._collect_garbage, interval),
        )

    def start(self) -> None:
        """Begin."""
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        """End the threads and let another server take over at once."""
        call_together(*(loop.stop for loop in self._loops))

    def _reconcile(self) -> None:
        self._is_elected = False
        self._is_elected = self._maintenance.elect(self._name, 5 * self._interval + 5)
        if not self._is_elected:
            return
        for pool, messages in self._maintenance.reconcile().items():
            log.info("pool=%s %d messages were missing", pool, messages)
        self._audited = self._maintenance.audit(self._audited)
        self._maintenance.report_poisoned()

    def _collect_garbage(self) -> None:
        if self._is_elected:
            self._maintenance.collect_garbage()

    def _step_down(self) -> None:
        self._maintenance.elect(self._name, 0)
