"""A ledger on a real Valkey, over each payload store."""

from __future__ import annotations

import uuid

import pytest

from convlens.jobs.broker import queue_name
from convlens.jobs.connect import connect
from convlens.jobs.ledger import Ledger, NewJob
from convlens.jobs.record import Priority
from convlens.jobs.settings import JobsSettings


@pytest.fixture(params=["redis", "directory"])
def ledger(request, redis_url, tmp_path) -> Ledger:
    settings = JobsSettings(
        redis_url=redis_url,
        payload_dir=tmp_path if request.param == "directory" else None,
        lease=0.3,
        max_attempts=2,
        result_ttl=0.6,
        tombstone_ttl=60,
        redelivery_grace=0.2,
        reconcile_interval=0.1,
    )
    return Ledger(connect(redis_url), settings)


@pytest.fixture
def new_job():
    def make(**changes) -> NewJob:
        fields = {
            "id": uuid.uuid4().hex, "model": "m", "queue": queue_name("m", Priority.NORMAL),
            "priority": Priority.NORMAL, "images": 1, "fingerprint": "f", "request": [b"image", b"bytes"],
            "timeout": 30.0, "keep": True,
        }  # fmt: skip
        return NewJob(**(fields | changes))

    return make
