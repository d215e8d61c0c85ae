"""A ledger on a real Valkey, over each payload store."""

from __future__ import annotations

import dataclasses
import uuid

import pytest

from convlens.jobs import keys
from convlens.jobs.admission import Bounds
from convlens.jobs.connect import connect
from convlens.jobs.hands import Then
from convlens.jobs.ledger import Ended, Ledger
from convlens.jobs.record import Priority
from convlens.jobs.settings import JobsSettings
from convlens.jobs.submission import NewJob

BOUNDS = Bounds(jobs=100, image_bytes=1 << 20, result_bytes=1 << 24, pixels=1 << 40, tenant_share=0.5)


class Jobs:
    """A ledger, and the shortest ways to say what tests say often."""

    bounds = BOUNDS

    def __init__(self, ledger):
        self.ledger = ledger

    def new(self, **changes) -> NewJob:
        """A job unlike any other."""
        fields = {
            "id": uuid.uuid4().hex, "model": "m", "tenant": "", "priority": Priority.NORMAL, "spec": b"spec",
            "images": [(uuid.uuid4().hex, b"image"), (uuid.uuid4().hex, b"bytes")], "fingerprint": uuid.uuid4().hex,
            "cost": 2, "pixels": 10, "reserved": 100, "timeout": 30.0, "hands": 1, "keep": True,
        }  # fmt: skip
        fields |= changes
        return NewJob(**({"pool": fields["model"]} | fields))

    def submit(self, job=None, bounds=None, **changes):
        """Queues a job; its record. Raises what becomes of one that is not queued."""
        return self.announced(job or self.new(**changes), **(bounds or {}))[0]

    def announced(self, job, **bounds):
        """Queues a job; its record, and whether a message is to wake a hand."""
        (found,) = self.ledger.submit([job], dataclasses.replace(self.bounds, **bounds))
        if isinstance(found, Exception):
            raise found
        return found

    def claim(self, worker="w1", pool="m", jobs=1):
        """The next jobs' claims, where each has two images."""
        return self.ledger.claim(pool, worker, 2 * jobs, "hand", Then.REST, jobs).jobs

    def take(self, record, worker="w1"):
        """The claim of just this job; it must be the next one."""
        (claim,) = self.claim(worker, record.pool)
        assert claim.record.id == record.id
        return claim

    def succeed(self, claim, body=b"body", header=b"header"):
        """Ends it."""
        return self.ledger.finish([self.ledger.store(claim, [body], len(body), lambda: header)])[0]

    def fail(self, claim, failure):
        """Ends it, too."""
        return self.ledger.finish([Ended(claim, failure)])[0]

    def reconcile(self):
        """One look; the messages to be sent again, by pool."""
        return self.ledger.reconcile()

    def get(self, record):
        return self.ledger.get(record.id)

    def load(self):
        """What the ledger counts as held, without zeros."""
        held = self.ledger.redis.hgetall(keys.LOAD)
        return {name.decode(): int(value) for name, value in held.items() if int(value)}


@pytest.fixture(params=["redis", "directory"])
def jobs(request, redis_url, tmp_path) -> Jobs:
    settings = JobsSettings(
        redis_url=redis_url,
        payload_dir=tmp_path if request.param == "directory" else None,
        lease=0.3,
        max_attempts=2,
        result_ttl=1.5,
        tombstone_ttl=60,
        redelivery_grace=0.2,
        reconcile_interval=0.1,
    )
    return Jobs(Ledger(connect(redis_url), settings))
