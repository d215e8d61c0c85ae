"""What is held is counted, bounded, and refused with the number, the bound and a time to come again."""

from __future__ import annotations

import time

import pytest

from convlens.jobs.queue.admission import AdmissionRejected
from convlens.jobs.queue.record import JobFailure, State


@pytest.mark.parametrize(
    ("bound", "limit"),
    [({"jobs": 1}, "max_jobs"), ({"image_bytes": 15}, "max_queued_bytes"), ({"result_bytes": 150}, "max_stored_bytes"),
     ({"pixels": 15}, "max_queued_pixels")],
)  # fmt: skip
def test_each_bound_refuses_the_job_that_would_pass_it_until_there_is_room(jobs, bound, limit):
    first = jobs.submit(bounds=bound)
    before = jobs.load()
    with pytest.raises(AdmissionRejected) as refused:
        jobs.submit(bounds=bound)
    assert refused.value.limit == limit
    assert not refused.value.never
    assert refused.value.retry_after > 0
    assert jobs.load() == before
    jobs.queue.cancel(first.id)
    jobs.submit(bounds=bound)


def test_a_job_larger_than_a_bound_is_told_that_it_never_fits(jobs):
    with pytest.raises(AdmissionRejected, match="would pass the 8 admitted") as refused:
        jobs.submit(bounds={"image_bytes": 8})
    assert refused.value.never


def test_a_tenant_has_its_share_and_leaves_the_rest_to_others(jobs):
    bounds = {"jobs": 4}
    first, _ = (jobs.submit(tenant="a", bounds=bounds) for _ in range(2))
    with pytest.raises(AdmissionRejected, match="tenant 'a'"):
        jobs.submit(tenant="a", bounds=bounds)
    jobs.submit(tenant="b", bounds=bounds)
    jobs.queue.cancel(first.id)
    jobs.submit(tenant="a", bounds=bounds)


def test_everything_is_given_back_however_a_job_ends(jobs):
    ends = [
        lambda r: jobs.queue.cancel(r.id),
        lambda r: jobs.fail(jobs.take(r), JobFailure("INTERNAL", "no")),
        lambda r: jobs.succeed(jobs.take(r)) and jobs.queue.delete(r),
    ]
    for end in ends:
        end(jobs.submit(tenant="a"))
        assert jobs.load() == {}


def test_the_faster_jobs_end_the_sooner_a_refused_caller_comes_again(jobs):
    def refused_after(ended):
        for _ in range(ended):
            jobs.queue.cancel(jobs.submit().id)
        held = [jobs.submit(bounds={"jobs": 10}) for _ in range(10)]
        with pytest.raises(AdmissionRejected) as refused:
            jobs.submit(bounds={"jobs": 10})
        for record in held:
            jobs.queue.cancel(record.id)
        return refused.value.retry_after

    slow = refused_after(1)
    assert refused_after(60) < slow


def test_a_tenant_that_asks_faster_than_its_rate_is_told_when_to_come_again(jobs):
    rate = {"tenant_rate": 10.0, "tenant_burst": 0.5}
    big = jobs.submit(tenant="a", bounds=rate, cost=12)  # more than the burst's 5
    before = jobs.load()
    with pytest.raises(
        AdmissionRejected, match=r"tenant_rate: tenant 'a' may ask for 10 images × passes a second"
    ) as refused:
        jobs.submit(tenant="a", bounds=rate, cost=1)
    assert not refused.value.never
    assert 0 < refused.value.retry_after <= 12 / 10 - 0.5
    assert jobs.load() == before
    jobs.submit(tenant="b", bounds=rate, cost=12)
    jobs.submit(bounds=rate, cost=12)
    jobs.queue.cancel(big.id)  # what was asked for is not given back
    time.sleep(refused.value.retry_after)  # the very thing that is promised
    jobs.submit(tenant="a", bounds=rate, cost=1)


def test_what_is_answered_or_was_asked_before_costs_nothing_of_a_rate(jobs):
    rate = {"tenant_rate": 1.0}
    job = jobs.new(tenant="a", fingerprint="f")
    first = jobs.submit(job, bounds=rate)
    assert jobs.submit(job, bounds=rate).id == first.id
    with pytest.raises(AdmissionRejected):
        jobs.submit(tenant="a", fingerprint="f", bounds=rate)  # it may have to be computed after all
    jobs.succeed(jobs.take(first))
    assert jobs.submit(tenant="a", fingerprint="f", bounds=rate).state is State.SUCCEEDED
    with pytest.raises(AdmissionRejected):
        jobs.submit(tenant="a", bounds=rate)
