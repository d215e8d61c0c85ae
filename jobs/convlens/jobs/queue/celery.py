"""Celery, all of it: the app and its options, the publisher, the consumer.

A message names a pool and wakes a hand (hands.py), which takes jobs in the ledger's own order, fair where that of
messages cannot be. So it is only a knock at the door: doubled ones find nothing to do, the reconciler sends lost ones
again, and kombu's own bookkeeping of unacknowledged messages is off.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning
from kombu.exceptions import OperationalError

from convlens.jobs.queue import keys
from convlens.jobs.queue.kombu_transport import TASK
from convlens.jobs.runtime.background import Loop

log = logging.getLogger(__name__)


def celery_app(redis_url: str, seconds: float = 10.0) -> Celery:
    """The Celery app on the broker at `redis_url`, which waits so long for an answer, be it that nothing has come."""
    app = Celery("convlens", broker=redis_url)
    app.conf.update(
        broker_transport="convlens.jobs.queue.kombu_transport:Transport",
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_create_missing_queues=True,
        task_send_sent_event=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # kombu would not check the certificate of a bare rediss:// URL; what the URL says goes before this
        broker_use_ssl={"ssl_cert_reqs": "required"} if redis_url.startswith("rediss:") else None,
        broker_channel_error_retry=True,  # a Redis that cannot write answers a BRPOP with an error: no reason to end
        broker_connection_timeout=2,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=2,
        broker_transport_options={
            "ack_emulation": False,
            "socket_timeout": seconds,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
    )
    return app


class Publisher:
    """A loop that sends the messages."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._loop = Loop("publisher", self._publish, at_end=self._publish_rest)
        self._loop.start()

    def put(self, pool: str) -> None:
        """Has a hand woken for a pool's jobs; returns at once. What cannot be sent is left to the reconciler."""
        self._waiting.put(pool)

    def close(self) -> None:
        """Publishes what waits and ends the thread."""
        self._loop.request_stop()
        self._waiting.put(None)
        self._loop.stop()

    def _publish(self) -> None:
        """Sends a message, for which it waits a second."""
        with contextlib.suppress(queue.Empty):
            if pool := self._waiting.get(timeout=1.0):
                self._send(pool)

    def _publish_rest(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                if pool := self._waiting.get_nowait():
                    self._send(pool)

    def _send(self, pool: str) -> None:
        """Sends a message. When it cannot be sent, those that wait behind it are dropped, or more and more would."""
        try:
            self._app.send_task(TASK, args=[pool], queue=keys.messages(pool), retry=False)
        except Exception as error:
            left = 1
            with contextlib.suppress(queue.Empty):
                while self._waiting.get_nowait():
                    left += 1
            log.warning("pool=%s %d messages are not sent: %s; the reconciler sends others", pool, left, error)
            if not isinstance(error, OperationalError):  # that is: Redis cannot be reached
                raise


def run_worker(
    app: Celery,
    name: str,
    pools: Iterable[str],
    compute: Callable[[str], None],
    concurrency: int,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None],
) -> int:
    """Consumes the pools' queues in `concurrency` threads, until SIGTERM or SIGINT; then waits for them.

    `compute(pool)` is called in a pool thread for each message, `on_stop` when no more are taken. Returns the exit
    status. Main thread only.
    """

    @app.task(name=TASK)  # type: ignore[untyped-decorator,unused-ignore]
    def run(pool: str) -> None:
        compute(str(pool))

    def ready(**_: Any) -> None:
        on_ready()

    def stop(**_: Any) -> None:
        on_stop()

    def keep_ours(**_: Any) -> None:
        """Celery leaves logging alone where somebody listens to this signal."""

    signals.setup_logging.connect(keep_ours, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    queues = [keys.messages(pool) for pool in pools]
    worker = app.Worker(
        hostname=name, pool="threads", concurrency=concurrency, queues=queues, without_gossip=True,
        without_mingle=True, without_heartbeat=True, quiet=True, loglevel="WARNING",
    )  # fmt: skip
    with warnings.catch_warnings():
        # Celery warns root of serializers that run code; only JSON is taken here.
        warnings.simplefilter("ignore", SecurityWarning)
        worker.start()
    return int(worker.exitcode or 0)
