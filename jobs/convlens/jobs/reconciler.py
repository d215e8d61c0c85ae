"""The reconciler: what lost its message or its worker is delivered again, what lost its time ends.

One front at a time does it, elected by a lock in Redis; the others stand by.
"""

from __future__ import annotations

import logging
import threading

import redis
from redis.exceptions import LockError

from convlens.jobs import keys
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
        self._lock = ledger.redis.lock(keys.RECONCILER, timeout=5 * self._interval + 5, blocking=False)
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and lets another front take over at once."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        elected = failing = False
        while not self._stop.wait(self._interval):
            try:
                elected = self._elected(elected)
                if elected:
                    self._once()
                failing = False
            except redis.RedisError as error:
                if not failing:
                    log.warning("reconciler: %s", error)
                failing = True
        if elected:
            try:
                self._lock.release()
            except redis.RedisError as error:
                log.info("reconciler: the lock is left to expire: %s", error)

    def _elected(self, before: bool) -> bool:
        if before:
            try:
                return bool(self._lock.reacquire())
            except LockError:
                log.warning("reconciler: another front took over")
        return bool(self._lock.acquire())

    def _once(self) -> None:
        for model, messages in self._ledger.reconcile().items():
            log.info("model=%s jobs are announced again, by %d messages", model, messages)
            for _ in range(messages):
                self._publisher.put(model)
        self._ledger.collect_garbage()
