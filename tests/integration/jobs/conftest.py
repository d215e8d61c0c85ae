"""A queue on a real Valkey, over each payload store."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from all_queue import Queue
from processes import until

from convlens.jobs.queue.admission import Bounds
from convlens.jobs.queue.consumer import Completion
from convlens.jobs.queue.new_job import NewJob
from convlens.jobs.queue.record import Priority
from convlens.jobs.queue.scripts import Scripts
from convlens.jobs.runtime.redis_client import connect
from convlens.jobs.runtime.settings import JobsSettings

BOUNDS = Bounds(jobs=100, image_bytes=1 << 20, result_bytes=1 << 24, known_jobs=1000, pixels=1 << 40, tenant_share=0.5)


class Jobs:
    """A queue, and the shortest ways to say what tests say often."""

    bounds = BOUNDS

    def __init__(self, queue):
        self.queue = queue

    def new(self, **changes) -> NewJob:
        """A job unlike any other."""
        fields = {
            "id": uuid.uuid4().hex, "model": "m", "tenant": "", "priority": Priority.NORMAL, "spec": b"spec",
            "images": [(uuid.uuid4().hex, b"image"), (uuid.uuid4().hex, b"bytes")], "fingerprint": uuid.uuid4().hex,
            "cost": 2, "pixels": 10, "reserved": 100, "timeout": 30.0, "keep": True,
        }  # fmt: skip
        fields |= changes
        return NewJob(**({"pool": fields["model"]} | fields))

    def submit(self, job=None, bounds=None, **changes):
        """Queue a job; its record. Raises the error of one that is not queued."""
        self.queue.bounds = dataclasses.replace(self.bounds, **(bounds or {}))
        (record,) = self.queue.submit([job or self.new(**changes)])
        if isinstance(record, Exception):
            raise record
        return record

    def claim(self, worker="w1", pool="m", jobs=1):
        """The next jobs' claims, where each has two images."""
        return self.queue.claim(pool, worker, 2 * jobs, jobs).jobs

    def take(self, record, worker="w1"):
        """The claim of just this job; it must be the next one."""
        (claim,) = self.claim(worker, record.pool)
        assert claim.record.id == record.id
        return claim

    def succeed(self, claim, body=b"body", header=b"header"):
        """Ends it."""
        return self.queue.finish([self.queue.store(claim, [body, header], len(body))])[0]

    def fail(self, claim, failure):
        """Ends it, too."""
        return self.queue.finish([Completion(claim, failure)])[0]

    def reconcile(self):
        """Look once; how many messages were missing, by pool."""
        return self.queue.reconcile()

    def reconcile_until(self, state, *records):
        """Look until all of these jobs are in a state."""
        until(lambda: (self.reconcile(), all(self.get(it).state is state for it in records))[1])

    def get(self, record):
        return self.queue.get(record.id)

    def leave(self, *records):
        """Those who got the records wait no longer."""
        self.queue.leave([(record.id, record.waiter) for record in records])

    def load(self):
        """What the queue counts as held, without zeros."""
        held = self.queue.redis.hgetall("convlens:usage")
        return {name.decode(): int(value) for name, value in held.items() if int(value)}


class SentTwice(Scripts):
    """Scripts as they run where each first reply is lost and the client library sends the command again.

    Not so of a look of the reconciler, which the next one makes up for, and of a full folder's call for cached results,
    after which more of them would go. Payloads named in a lost reply, which go when their time is over, are told all
    the same, for the tests to see nothing else left.
    """

    def __call__(self, name, *data, **options):
        lost = super().__call__(name, *data, **options)
        if name in {"reconcile", "evict_cached"}:
            return lost
        reply = super().__call__(name, *data, **options)
        match name:
            case "finish":
                return [reply[0], lost[1] + reply[1]]
            case "leave":
                return lost + reply
        return reply


@pytest.fixture(params=["redis", "directory", "sent-twice"])
def jobs(request, redis_url, tmp_path, monkeypatch) -> Jobs:
    if request.param == "sent-twice":
        monkeypatch.setattr("convlens.jobs.queue.client.Scripts", SentTwice)
    settings = JobsSettings(
        redis_url=redis_url,
        payload_dir=tmp_path if request.param == "directory" else None,
        lease=0.3,
        max_attempts=2,
        result_ttl=1.5,
        tombstone_ttl=60,
        answered_ttl=0.3,
        reconcile_interval=0.1,
    )
    return Jobs(Queue(connect(redis_url), settings, BOUNDS))
