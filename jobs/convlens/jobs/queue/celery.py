"""Celery: the app and its options, inspect commands, and the worker that consumes.

A message is a permit, not an order: who gets one claims jobs in the fair order of the queue, which that of messages
cannot be (see lua/lib/messages.lua). Extra messages find nothing to do, the reconciler puts missing ones back, and
kombu's own bookkeeping of unacknowledged messages is off.

`celery -A convlens.jobs.queue.celery inspect …` and Flower find the app as `app`, at the Redis of the settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery, signals
from celery.events import EventDispatcher
from celery.exceptions import SecurityWarning
from celery.worker.control import inspect_command

from convlens.jobs.queue import keys
from convlens.jobs.queue.kombu_transport import TASK
from convlens.jobs.queue.lease_renewer import LeaseRenewer
from convlens.jobs.runtime.command_line import read_settings
from convlens.jobs.runtime.settings import JobsSettings
from convlens.v1 import model_pb2


def __getattr__(name: str) -> Celery:
    """`app`, for Celery's own tools."""
    if name != "app":
        raise AttributeError(name)
    return celery_app(read_settings(JobsSettings, "celery", []).redis_url)


def worker_app(redis_url: str, *, remote_control: bool) -> Celery:
    """The Celery app of a worker, whose transport drops what is no message of this queue."""
    app = celery_app(redis_url)
    app.conf.update(
        broker_transport="convlens.jobs.queue.kombu_transport:Transport",
        broker_pool_limit=2,
        worker_enable_remote_control=remote_control,
    )
    return app


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
        worker_send_task_events=False,  # see celery_events.py
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
        broker_transport_options={
            "ack_emulation": False,
            "socket_timeout": 10.0,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
    )
    return app


@inspect_command(name="active", alias="dump_active")  # type: ignore[untyped-decorator,unused-ignore]
def active(state: Any, **_: Any) -> list[dict[str, Any]]:
    """List the jobs that are being computed, as Celery lists tasks."""
    return [
        {
            "id": claim.record.id, "name": TASK, "type": TASK, "args": [claim.record.id], "kwargs": {},
            "hostname": state.hostname, "time_start": claim.record.started, "acknowledged": True,
            "delivery_info": {"exchange": "", "routing_key": keys.messages(claim.record.pool)}, "worker_pid": None,
        }
        for claim in state.app.leases.held()
    ]  # fmt: skip


@inspect_command(name="jobs")  # type: ignore[untyped-decorator,unused-ignore]
def jobs(state: Any, **_: Any) -> list[dict[str, Any]]:
    """List the jobs that are being computed: model, priority, tenant, images, attempt."""
    records = [claim.record for claim in state.app.leases.held()]
    return [
        {
            "id": record.id, "model": record.model, "priority": record.priority.name.lower(), "tenant": record.tenant,
            "images": record.images, "attempt": record.attempts, "started": record.started,
        }
        for record in records
    ]  # fmt: skip


@inspect_command(name="models")  # type: ignore[untyped-decorator,unused-ignore]
def models(state: Any, **_: Any) -> list[dict[str, str]]:
    """List the models that are served, and the lists that their jobs wait in."""
    return [
        {"name": card.name, "source": card.source, "pool": pool, "list": keys.messages(pool)}
        for pool, card in state.app.cards.items()
    ]


class _Events(EventDispatcher):  # type: ignore[misc,unused-ignore]
    """Events of the worker itself. Its heartbeats count jobs as active, where Celery would count consumers."""

    def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        if "active" in fields:
            fields["active"] = len(self.app.leases.held())
        return super().send(type, *args, **fields)


def run_worker(
    app: Celery,
    name: str,
    cards: Mapping[str, model_pb2.Model],
    leases: LeaseRenewer,
    consume: Callable[[str, str], None],
    concurrency: int,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None],
) -> int:
    """Consume the queues of the pools of `cards` in `concurrency` threads, until SIGTERM or SIGINT; then wait for them.

    `consume(pool, kind)` is called in a thread for each message, with the pool and kind of the list that it was in;
    `on_stop` when no more are taken. Returns the exit status. Main thread only.
    """
    lists = {keys.messages(pool, kind): (pool, kind) for pool in cards for kind in keys.KINDS}

    app.cards, app.leases = cards, leases  # for the inspect commands
    app.events.dispatcher_cls = _Events

    @app.task(name=TASK, bind=True, send_events=False)  # type: ignore[untyped-decorator,unused-ignore]
    def visualize(task: Any, _job_id: str) -> None:
        consume(*lists[task.request.delivery_info["routing_key"]])

    signals.setup_logging.connect(lambda **_: None, weak=False)  # a listener keeps Celery from configuring logging
    signals.worker_ready.connect(lambda **_: on_ready(), weak=False)
    signals.worker_shutting_down.connect(lambda **_: on_stop(), weak=False)
    worker = app.Worker(
        hostname=name, pool="threads", concurrency=concurrency, queues=list(lists), without_gossip=True,
        without_mingle=True, without_heartbeat=not app.conf.worker_enable_remote_control, quiet=True,
        loglevel="WARNING",
    )  # fmt: skip
    with warnings.catch_warnings():
        # Celery warns root of serializers that run code; only JSON is taken here.
        warnings.simplefilter("ignore", SecurityWarning)
        worker.start()
    return int(worker.exitcode or 0)
