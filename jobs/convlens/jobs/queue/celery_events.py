"""Celery events of jobs, which Flower and exporters show: received, started, succeeded, failed, revoked.

A message is a permit for any job, so that Celery itself does not know which job it computes: its own events of the
task are off, and these have the ids of the jobs that were really claimed.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import Any, Final

from celery import Celery
from celery.utils.nodenames import default_nodename
from kombu import Connection

from convlens.jobs.queue.consumer import Claim
from convlens.jobs.queue.kombu_transport import TASK
from convlens.jobs.queue.record import JobFailure
from convlens.jobs.runtime.background import Loop

_EVERY_SECONDS: Final = 0.5
"""Between two messages, each of all events since the last one."""
_MOST: Final = 10_000
"""Events that wait to be sent; the oldest are dropped while Redis is away."""


class JobEvents:
    """A loop that sends the events of one worker; with `is_on` false nothing is sent."""

    def __init__(self, app: Celery, worker: str, *, is_on: bool) -> None:
        self._app = app
        self._hostname = default_nodename(worker)
        self._is_on = is_on
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque(maxlen=_MOST)
        self._connection: Connection | None = None
        self._loop = Loop("celery-events", self._send, _EVERY_SECONDS, at_end=self._close)

    def start(self) -> None:
        """Begin to send."""
        if self._is_on:
            self._loop.start()

    def stop(self) -> None:
        """Send what waits and end the thread."""
        if self._is_on:
            self._loop.stop()

    def claimed(self, claim: Claim) -> None:
        """A job was claimed, and its computation begins."""
        record = claim.record
        arguments = {"args": repr((record.id,)), "kwargs": "{}", "root_id": record.id, "parent_id": None}
        queue = {"retries": record.attempts - 1, "eta": None, "expires": None, "queue": f"convlens.{record.pool}"}
        self._add("task-received", claim, name=TASK, **arguments, **queue)
        self._add("task-started", claim)

    def succeeded(self, claim: Claim) -> None:
        """A job's result is stored."""
        self._add("task-succeeded", claim, result="None", runtime=time.monotonic() - claim.claimed_at)

    def failed(self, claim: Claim, failure: JobFailure) -> None:
        """A job ended FAILED."""
        self._add("task-failed", claim, exception=f"{failure.reason}: {failure.message}", traceback="")

    def revoked(self, claim: Claim) -> None:
        """A job ended before its result was there: it was cancelled, or its deadline passed."""
        self._add("task-revoked", claim, terminated=True, signum=None, expired=False)

    def _add(self, kind: str, claim: Claim, **fields: object) -> None:
        if self._is_on:
            self._waiting.append((kind, {"uuid": claim.record.id, "timestamp": time.time(), **fields}))

    def _send(self) -> None:
        if not self._waiting:
            return
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        dispatcher = self._app.events.Dispatcher(
            self._connection, hostname=self._hostname, buffer_while_offline=False, buffer_group={"task"},
            buffer_limit=_MOST,
        )  # fmt: skip
        with contextlib.suppress(IndexError):
            while True:
                kind, fields = self._waiting.popleft()
                dispatcher.send(kind, **fields)
        try:
            dispatcher.flush()
        except BaseException:
            self._disconnect()
            raise

    def _close(self) -> None:
        try:
            self._send()
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.release()
            self._connection = None
