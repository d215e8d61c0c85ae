"""A suspect is a job whose worker was lost, perhaps because of the job: the next worker runs it alone."""

from __future__ import annotations

import pytest

from convlens.jobs.queue.celery import worker_app
from convlens.jobs.queue.celery_events import JobEvents
from convlens.jobs.queue.lease_renewer import LeaseRenewer
from convlens.jobs.queue.record import State
from convlens.worker.pipeline import claiming
from convlens.worker.pipeline.claiming import Claimer


@pytest.fixture
def suspects(jobs):
    """Two suspects and a later job."""
    first, second = jobs.submit(), jobs.submit()
    assert len(jobs.claim("lost", jobs=2)) == 2
    jobs.reconcile_until(State.QUEUED, first, second)
    return first, second, jobs.submit()


def claim(jobs, *, is_idle):
    """Claim jobs and return their ids, and whether a suspect waits for an idle worker."""
    result = jobs.queue.claim("m", "w1", 1000, is_idle=is_idle)
    return [claimed.record.id for claimed in result.jobs], result.is_blocked


def test_an_idle_worker_claims_one_suspect_alone(jobs, suspects):
    first, second, later = suspects
    assert claim(jobs, is_idle=True) == ([first.id], False)
    assert claim(jobs, is_idle=True) == ([second.id], False)
    assert claim(jobs, is_idle=True) == ([later.id], False)


def test_a_busy_worker_claims_no_job_behind_a_suspect(jobs, suspects):
    assert claim(jobs, is_idle=False) == ([], True)
    assert jobs.get(suspects[2]).state is State.QUEUED


def test_a_released_job_is_not_a_suspect(jobs):
    record = jobs.submit()
    assert jobs.queue.release(jobs.claim_job(record))
    assert claim(jobs, is_idle=False) == ([record.id], False)


@pytest.fixture
def claimer(jobs):
    """The claimer of a worker, and its lease renewer."""
    leases = LeaseRenewer(jobs.queue)
    events = JobEvents(worker_app(jobs.queue.settings.redis_url, remote_control=False), "w1", is_on=False)
    return Claimer(jobs.queue, leases, events, "w1"), leases


def ids(claimer, pool="m"):
    """Claim jobs of a pool and return their ids."""
    return [claimed.record.id for claimed in claimer.claim(pool, 1000, 1, 1).jobs]


def test_a_worker_finishes_its_running_jobs_before_it_claims_a_suspect(jobs, suspects, claimer):
    claims, leases = claimer
    first, second, last = suspects
    other = jobs.submit(model="other")
    assert ids(claims, "other") == [other.id]
    later = jobs.submit(model="other")
    assert ids(claims) == []
    assert ids(claims, "other") == []  # otherwise the suspects would never be claimed
    (held,) = leases.held()
    leases.drop(held)
    assert ids(claims, "other") == []
    assert ids(claims) == [first.id]
    assert ids(claims) == ids(claims, "other") == []  # the suspect runs alone
    leases.drop(leases.held()[0])
    assert ids(claims) == [second.id]
    leases.drop(leases.held()[0])
    assert ids(claims) == [last.id]
    assert ids(claims, "other") == [later.id]


def test_suspects_and_other_jobs_wait_for_a_limited_time_only(jobs, suspects, claimer, monkeypatch):
    claims, _ = claimer
    running = jobs.submit(model="other")
    assert ids(claims, "other") == [running.id]
    later = jobs.submit(model="other")
    assert ids(claims) == []
    monkeypatch.setattr(claiming, "ALONE_SECONDS", 0.0)
    assert ids(claims) == [suspects[0].id]
    assert ids(claims, "other") == [later.id]
