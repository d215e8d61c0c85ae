"""What is done after a script has succeeded changes nothing of its outcome where Redis goes away meanwhile."""

from __future__ import annotations

from convlens.jobs.queue.consumer import Completion
from convlens.jobs.queue.record import JobFailure, State
from convlens.jobs.runtime.redis_client import RedisUnavailable


def fail(names):
    raise RedisUnavailable("gone")


def test_a_job_that_is_queued_or_finished_is_so_though_garbage_cannot_be_deleted(jobs, monkeypatch):
    monkeypatch.setattr(jobs.queue.payloads, "delete", fail)
    record = jobs.submit()
    assert record.state is State.QUEUED
    (claim,) = jobs.queue.claim(record.pool, "worker", 8).jobs
    assert jobs.queue.finish([Completion(claim, JobFailure("INTERNAL", "message"))]) == [True]
    assert jobs.queue.get(record.id).state is State.FAILED
