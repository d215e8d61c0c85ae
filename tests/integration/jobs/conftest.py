"""A queue on a real Valkey, with each payload store, and with every script call sent twice."""

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
    """A queue and short forms of frequent calls to it."""

    bounds = BOUNDS

    def __init__(self, queue):
        self.queue = queue

    def new(self, **changes) -> NewJob:
        """A new job with unique images and a unique fingerprint, except for `changes`."""
        fields = {
            "id": uuid.uuid4().hex, "model": "m", "tenant": "", "priority": Priority.NORMAL, "spec": b"spec",
            "images": [(uuid.uuid4().hex, b"image"), (uuid.uuid4().hex, b"bytes")], "fingerprint": uuid.uuid4().hex,
            "cost": 2, "pixels": 10, "reserved": 100, "timeout": 30.0, "keep": True,
        }  # fmt: skip
        fields |= changes
        return NewJob(**({"pool": fields["model"]} | fields))

    def submit(self, job=None, bounds=None, **changes):
        """Queue a job and return its record; raise its error if it is not admitted."""
        self.queue.bounds = dataclasses.replace(self.bounds, **(bounds or {}))
        (record,) = self.queue.submit([job or self.new(**changes)])
        if isinstance(record, Exception):
            raise record
        return record

    def claim(self, worker="w1", pool="m", jobs=1):
        """Claim the next jobs of a pool, of two images each."""
        return self.queue.claim(pool, worker, 2 * jobs, jobs).jobs

    def claim_job(self, record, worker="w1"):
        """Claim one job, which has to be the next one of its pool."""
        (claim,) = self.claim(worker, record.pool)
        assert claim.record.id == record.id
        return claim

    def succeed(self, claim, body=b"body", header=b"header"):
        """Finish a job with a result; True when that was its end."""
        return self.queue.finish([self.queue.store(claim, [body, header], len(body))])[0]

    def fail(self, claim, failure):
        """Finish a job with a failure; True when that was its end."""
        return self.queue.finish([Completion(claim, failure)])[0]

    def reconcile(self):
        """Run the reconciler once and return the number of missing messages by pool."""
        return self.queue.reconcile()

    def reconcile_until(self, state, *records):
        """Run the reconciler until all of these jobs are in a state."""
        until(lambda: (self.reconcile(), all(self.get(record).state is state for record in records))[1])

    def get(self, record):
        return self.queue.get(record.id)

    def leave(self, *records):
        """Remove the waiters of these records."""
        self.queue.leave([(record.id, record.waiter) for record in records])

    def usage(self):
        """The counters of admitted work that are not zero."""
        counters = self.queue.redis.hgetall("convlens:usage")
        return {name.decode(): int(value) for name, value in counters.items() if int(value)}


class RepeatedScripts(Scripts):
    """Runs each script twice, as when the first reply is lost and the client library repeats the command.

    Scripts that are not idempotent run once: `reconcile`, whose next run makes up for a lost reply, and `evict`, which
    would drop more. Payload names in the first reply are kept, because tests look for payloads that
    are left; in production such payloads expire.
    """

    def __call__(self, name, *data, **options):
        first = super().__call__(name, *data, **options)
        if name in {"reconcile", "evict"}:
            return first
        second = super().__call__(name, *data, **options)
        match name:
            case "finish":
                return [second[0], first[1] + second[1]]
            case "leave":
                return first + second
        return second


@pytest.fixture(params=["redis", "directory", "repeated-scripts"])
def jobs(request, redis_url, tmp_path, monkeypatch) -> Jobs:
    if request.param == "repeated-scripts":
        monkeypatch.setattr("convlens.jobs.queue.client.Scripts", RepeatedScripts)
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
