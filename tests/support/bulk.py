"""Submit thousands of jobs quickly, straight to the queue, a hundred in each script call."""

from __future__ import annotations

import uuid

from all_queue import Queue

from convlens.jobs.queue.new_job import NewJob
from convlens.jobs.queue.record import Priority, Record
from convlens.jobs.runtime.redis_client import connect
from convlens.jobs.runtime.settings import JobsSettings
from convlens.server.settings import ServerSettings

POOL = "unserved"
"""The pool of a model that no worker serves: its jobs stay queued."""


def open_queue(url: str, **settings: object) -> Queue:
    """Open the queue of a service with a server's default bounds."""
    return Queue(connect(url), JobsSettings(redis_url=url, **settings), ServerSettings().bounds)


def submit(queue: Queue, number: int, **changes: object) -> list[Record]:
    """Queue `number` jobs of one small image. No two are equal unless `changes` give them one fingerprint."""
    records = []
    for first in range(0, number, 100):
        jobs = []
        for _ in range(min(100, number - first)):
            unique = uuid.uuid4().hex
            fields = {
                "id": uuid.uuid4().hex, "model": POOL, "pool": POOL, "tenant": "", "priority": Priority.NORMAL,
                "spec": b"spec", "images": [(unique, b"image")], "fingerprint": unique, "cost": 1, "pixels": 1,
                "reserved": 100, "timeout": 600.0, "keep": False,
            }  # fmt: skip
            jobs.append(NewJob(**fields | changes))
        records += queue.submit(jobs)
    return records
