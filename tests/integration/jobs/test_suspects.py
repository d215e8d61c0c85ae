"""A job whose worker fell silent may have been the reason: the next one has it alone."""

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
    """Two jobs whose worker fell silent, and one that came later."""
    first, second = jobs.submit(), jobs.submit()
    assert len(jobs.claim("lost", jobs=2)) == 2
    jobs.reconcile_until(State.QUEUED, first, second)
    return first, second, jobs.submit()


def claimed(jobs, *, is_idle):
    found = jobs.queue.claim("m", "w1", 1000, is_idle=is_idle)
    return [it.record.id for it in found.jobs], found.suspect_waits


def test_an_idle_worker_gets_one_suspect_and_nothing_else(jobs, suspects):
    first, second, later = suspects
    assert claimed(jobs, is_idle=True) == ([first.id], False)
    assert claimed(jobs, is_idle=True) == ([second.id], False)
    assert claimed(jobs, is_idle=True) == ([later.id], False)


def test_a_worker_that_is_not_idle_gets_nothing_that_is_behind_a_suspect(jobs, suspects):
    assert claimed(jobs, is_idle=False) == ([], True)
    assert jobs.get(suspects[2]).state is State.QUEUED


def test_what_was_given_back_is_no_suspect(jobs):
    record = jobs.submit()
    assert jobs.queue.release(jobs.take(record))
    assert claimed(jobs, is_idle=False) == ([record.id], False)


@pytest.fixture
def claimer(jobs):
    """Of a worker, and its leases."""
    leases = LeaseRenewer(jobs.queue)
    events = JobEvents(worker_app(jobs.queue.settings.redis_url, remote_control=False), "w1", is_on=False)
    return Claimer(jobs.queue, leases, events, "w1"), leases


def ids(claimer, pool="m"):
    """What a consumer of a pool is given."""
    return [it.record.id for it in claimer.claim(pool, 1000, 1, 1).jobs]


def test_a_worker_lets_what_it_holds_end_before_a_suspect(jobs, suspects, claimer):
    claims, leases = claimer
    first, second, last = suspects
    other = jobs.submit(model="other")
    assert ids(claims, "other") == [other.id]
    later = jobs.submit(model="other")
    assert ids(claims) == []
    assert ids(claims, "other") == []  # or the suspects would wait for ever
    (held,) = leases.held()
    leases.drop(held)
    assert ids(claims, "other") == []
    assert ids(claims) == [first.id]
    assert ids(claims) == ids(claims, "other") == []  # nothing beside it
    leases.drop(leases.held()[0])
    assert ids(claims) == [second.id]
    leases.drop(leases.held()[0])
    assert ids(claims) == [last.id]
    assert ids(claims, "other") == [later.id]


def test_nobody_waits_for_long(jobs, suspects, claimer, monkeypatch):
    """For a job that takes minutes to end, or a suspect that does."""
    claims, _ = claimer
    held = jobs.submit(model="other")
    assert ids(claims, "other") == [held.id]
    later = jobs.submit(model="other")
    assert ids(claims) == []
    monkeypatch.setattr(claiming, "ALONE_SECONDS", 0.0)
    assert ids(claims) == [suspects[0].id]
    assert ids(claims, "other") == [later.id]
