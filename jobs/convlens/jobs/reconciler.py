"""The reconciler: what lost its message or its worker is delivered again, what lost its weights or its time ends.

One front at a time does it, elected in Redis; the others stand by.
"""

from __future__ import annotations

import logging
import threading
import uuid

import redis

from convlens.jobs.broker import Publisher
from convlens.jobs.ledger import Ledger

log = logging.getLogger(__name__)


class Reconciler:
    """A thread that looks after the ledger every `reconcile_interval`."""

    def __init__(self, ledger: Ledger, publisher: Publisher) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._interval = ledger.settings.reconcile_interval
        self._stop = threading.Event()
        self._name = uuid.uuid4().hex
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and lets another front take over at once."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        failing = False
        while not self._stop.wait(self._interval):
            try:
                if self._ledger.elect(self._name, 5 * self._interval + 5):
                    self._once()
                failing = False
            except redis.RedisError as error:
                if not failing:
                    log.warning("reconciler: %s", error)
                failing = True
        try:
            self._ledger.elect(self._name, 0)
        except redis.RedisError as error:
            log.info("reconciler: another front will take over later: %s", error)

    def _once(self) -> None:
        for pool, messages in self._ledger.reconcile().items():
            log.info("pool=%s jobs are announced again, by %d messages", pool, messages)
            for _ in range(messages):
                self._publisher.put(pool)
        self._ledger.collect_garbage()
