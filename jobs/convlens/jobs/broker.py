"""Celery, all of it: the app and its options, the publisher, the consumer.

A message names a pool and wakes a hand (hands.py), which takes jobs in the ledger's own order, fair where that of
messages cannot be. So it is only a knock at the door: doubled ones find nothing to do, the reconciler sends lost ones
again, and kombu's own bookkeeping of unacknowledged messages is off.
"""

from __future__ import annotations

import logging
import queue
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Final

from celery import Celery, signals
from celery.exceptions import SecurityWarning
from kombu.exceptions import OperationalError

from convlens.jobs import keys

log = logging.getLogger(__name__)

TASK: Final = "convlens.compute"


def celery_app(redis_url: str, seconds: float = 10.0) -> Celery:
    """The Celery app on the broker at `redis_url`, which waits so long for an answer, be it that nothing has come."""
    app = Celery("convlens", broker=redis_url)
    app.conf.update(
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
    """A thread that sends the messages."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def put(self, pool: str) -> None:
        """Has a hand woken for a pool's jobs; returns at once. What cannot be sent is left to the reconciler."""
        self._waiting.put(pool)

    def close(self) -> None:
        """Publishes what waits and ends the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (pool := self._waiting.get()) is not None:
            try:
                self._app.send_task(TASK, args=[pool], queue=keys.messages(pool), retry=False)
            except OperationalError as error:
                log.warning("pool=%s jobs not announced: %s; they will be announced again", pool, error)


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
