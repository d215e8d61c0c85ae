"""Celery, all of it: the app and its options, the publisher of job ids, the consumer. Messages carry ids only.

A message is only a delivery: the ledger is the truth, claims make doubled messages harmless, and the reconciler sends
lost ones again. So kombu's own bookkeeping of unacknowledged messages is off.
"""

from __future__ import annotations

import logging
import queue
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from celery import Celery, signals
from celery.exceptions import SecurityWarning
from kombu.exceptions import OperationalError

from convlens.jobs.record import Priority

log = logging.getLogger(__name__)

TASK: Final = "convlens.compute"
MESSAGE_JOBS: Final = 64
"""The most job ids in one message."""


def queue_name(model: str, priority: Priority) -> str:
    """The queue of a model and a priority."""
    return f"convlens.{model}.{priority.name.lower()}"


def celery_app(redis_url: str) -> Celery:
    """The Celery app on the broker at `redis_url`."""
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
        broker_connection_timeout=2,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=2,
        broker_transport_options={
            "ack_emulation": False,
            "queue_order_strategy": "priority",
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
    )
    return app


class Publisher:
    """A thread that publishes job ids; what waits while one message is under way goes into the next."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def put(self, queue_: str, job_id: str) -> None:
        """Has `job_id` published on `queue_`; returns at once. What cannot be sent is left to the reconciler."""
        self._waiting.put((queue_, job_id))

    def close(self) -> None:
        """Publishes what waits and ends the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            items = [self._waiting.get()]
            while not self._waiting.empty():
                items.append(self._waiting.get())
            closing = None in items
            by_queue: dict[str, list[str]] = {}
            for item in items:
                if item is not None:
                    by_queue.setdefault(item[0], []).append(item[1])
            for name, ids in by_queue.items():
                for start in range(0, len(ids), MESSAGE_JOBS):
                    self._send(name, ids[start : start + MESSAGE_JOBS])

    def _send(self, name: str, ids: list[str]) -> None:
        try:
            self._app.send_task(TASK, args=[ids], queue=name, retry=False)
        except OperationalError as error:
            log.warning("queue=%s jobs=%d not published: %s; they will be published again", name, len(ids), error)


def run_worker(
    app: Celery,
    name: str,
    models: Iterable[str],
    compute: Callable[[Sequence[str]], None],
    concurrency: int,
    on_ready: Callable[[], None],
) -> int:
    """Consumes the models' queues, best priority first, in `concurrency` threads, until SIGTERM or SIGINT; then drains.

    `compute(job_ids)` is called in a pool thread for each message. Returns the exit status. Main thread only.
    """

    @app.task(name=TASK)  # type: ignore[untyped-decorator,unused-ignore]
    def run(ids: list[str]) -> None:
        compute([str(job_id) for job_id in ids])

    def ready(**_: Any) -> None:
        on_ready()

    signals.worker_ready.connect(ready, weak=False)
    queues = [queue_name(model, priority) for priority in Priority for model in models]
    worker = app.Worker(
        hostname=name, pool="threads", concurrency=concurrency, queues=queues, without_gossip=True,
        without_mingle=True, without_heartbeat=True, quiet=True, loglevel="WARNING",
    )  # fmt: skip
    with warnings.catch_warnings():
        # Celery warns root of serializers that run code; only JSON is taken here.
        warnings.simplefilter("ignore", SecurityWarning)
        worker.start()
    return int(worker.exitcode or 0)
