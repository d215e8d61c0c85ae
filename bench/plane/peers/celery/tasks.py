"""Bare Celery's task: images in the message, maps in the result backend, pickled, so that bytes stay bytes."""

from __future__ import annotations

from celery import Celery

from bench.plane.work import answer

app = Celery("bench")
app.conf.update(
    task_serializer="pickle", result_serializer="pickle", accept_content=["pickle"], result_expires=60,
    worker_prefetch_multiplier=4, task_create_missing_queues=True,
)  # fmt: skip


def connect(port: str) -> None:
    """Use the Redis on this port as broker and result backend."""
    app.conf.update(broker_url=f"redis://127.0.0.1:{port}/0", result_backend=f"redis://127.0.0.1:{port}/1")


@app.task
def zeros(bodies: list[bytes]) -> list[bytes]:
    """Return the maps of zeros of a pack of images."""
    return [answer(body) for body in bodies]
