"""Celery, all of it: the app and its options, the publisher, the consumer.

A message says how many jobs of a model were queued, not which: whoever gets it claims as many, in the ledger's own
order, which is fair where that of messages cannot be. So a message is only a delivery: doubled ones find nothing to do,
the reconciler sends lost ones again, and kombu's own bookkeeping of unacknowledged messages is off.
"""

from __future__ import annotations

import logging
import queue
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from celery import Celery, signals
from celery.exceptions import SecurityWarning
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)

TASK: Final = "convlens.compute"
MESSAGE_JOBS: Final = 16
"""The most jobs in one message: few enough for several threads and workers to share a burst."""


def queue_name(model: str) -> str:
    """The Celery queue of a model."""
    return f"convlens.{model}"


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
        # kombu would not check the certificate of a bare rediss:// URL; what the URL says goes before this
        broker_use_ssl={"ssl_cert_reqs": "required"} if redis_url.startswith("rediss:") else None,
        broker_channel_error_retry=True,  # a Redis that cannot write answers a BRPOP with an error: no reason to end
        broker_connection_timeout=2,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=2,
        broker_transport_options={
            "ack_emulation": False,
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
    )
    return app


class Publisher:
    """A thread that announces jobs; what waits while one message is under way goes into the next."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def put(self, model: str, jobs: int = 1) -> None:
        """Has `jobs` jobs of a model announced; returns at once. What cannot be sent is left to the reconciler."""
        self._waiting.put((model, jobs))

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
            by_model: Counter[str] = Counter()
            for item in items:
                if item is not None:
                    by_model[item[0]] += item[1]
            for model, jobs in by_model.items():
                for start in range(0, jobs, MESSAGE_JOBS):
                    self._send(model, min(MESSAGE_JOBS, jobs - start))

    def _send(self, model: str, jobs: int) -> None:
        try:
            self._app.send_task(TASK, args=[model, jobs], queue=queue_name(model), retry=False)
        except OperationalError as error:
            log.warning("model=%s jobs=%d not announced: %s; they will be announced again", model, jobs, error)


def run_worker(
    app: Celery,
    name: str,
    models: Iterable[str],
    compute: Callable[[str, int], None],
    concurrency: int,
    on_ready: Callable[[], None],
) -> int:
    """Consumes the models' queues in `concurrency` threads, until SIGTERM or SIGINT; then drains.

    `compute(model, jobs)` is called in a pool thread for each message. Returns the exit status. Main thread only.
    """

    @app.task(name=TASK)  # type: ignore[untyped-decorator,unused-ignore]
    def run(model: str, jobs: int) -> None:
        compute(str(model), min(int(jobs), MESSAGE_JOBS))

    def ready(**_: Any) -> None:
        on_ready()

    def keep_ours(**_: Any) -> None:
        """Celery leaves logging alone where somebody listens to this signal."""

    signals.setup_logging.connect(keep_ours, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    queues = [queue_name(model) for model in models]
    worker = app.Worker(
        hostname=name, pool="threads", concurrency=concurrency, queues=queues, without_gossip=True,
        without_mingle=True, without_heartbeat=True, quiet=True, loglevel="WARNING",
    )  # fmt: skip
    with warnings.catch_warnings():
        # Celery warns root of serializers that run code; only JSON is taken here.
        warnings.simplefilter("ignore", SecurityWarning)
        worker.start()
    return int(worker.exitcode or 0)
