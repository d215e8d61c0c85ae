"""Very many jobs in a short time: submitted to the queue itself, many by one script."""

from __future__ import annotations

import uuid

from all_queue import Queue

from convlens.jobs.queue.new_job import NewJob
from convlens.jobs.queue.record import Priority, Record
from convlens.jobs.runtime.redis_client import connect
from convlens.jobs.runtime.settings import JobsSettings
from convlens.server.settings import ServerSettings

POOL = "nobody"
"""The pool of a model that no worker serves: its jobs wait."""


def open_queue(url: str, **settings: object) -> Queue:
    """The queue of a service, held to a server's default bounds."""
    return Queue(connect(url), JobsSettings(redis_url=url, **settings), ServerSettings().bounds)


def submit(queue: Queue, number: int, **changes: object) -> list[Record]:
    """Queues so many jobs of one small image, each unlike any other unless the changes make them equal."""
    records = []
    for first in range(0, number, 100):
        jobs = []
        for _ in range(min(100, number - first)):
            unlike = uuid.uuid4().hex
            fields = {
                "id": uuid.uuid4().hex, "model": POOL, "pool": POOL, "tenant": "", "priority": Priority.NORMAL,
                "spec": b"spec", "images": [(unlike, b"image")], "fingerprint": unlike, "cost": 1, "pixels": 1,
                "reserved": 100, "timeout": 600.0, "keep": False,
            }  # fmt: skip
            jobs.append(NewJob(**fields | changes))
        records += queue.submit(jobs)
    return records
