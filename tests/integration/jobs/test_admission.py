"""Admission counts queued work and rejects jobs beyond a bound with the limit and a time to retry."""

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
def test_each_bound_rejects_a_job_that_would_exceed_it_until_another_job_ends(jobs, bound, limit):
    first = jobs.submit(bounds=bound)
    before = jobs.usage()
    with pytest.raises(AdmissionRejected) as refused:
        jobs.submit(bounds=bound)
    assert refused.value.limit == limit
    assert not refused.value.never
    assert refused.value.retry_after > 0
    assert jobs.usage() == before
    jobs.queue.cancel(first.id)
    jobs.submit(bounds=bound)


def test_a_job_larger_than_a_bound_is_rejected_for_good(jobs):
    with pytest.raises(AdmissionRejected, match="would pass the 8 admitted") as refused:
        jobs.submit(bounds={"image_bytes": 8})
    assert refused.value.never


def test_a_tenant_cannot_use_more_than_its_share(jobs):
    bounds = {"jobs": 4}
    first, _ = (jobs.submit(tenant="a", bounds=bounds) for _ in range(2))
    with pytest.raises(AdmissionRejected, match="tenant 'a'"):
        jobs.submit(tenant="a", bounds=bounds)
    jobs.submit(tenant="b", bounds=bounds)
    jobs.queue.cancel(first.id)
    jobs.submit(tenant="a", bounds=bounds)


def test_every_end_of_a_job_resets_the_counters(jobs):
    ends = [
        lambda r: jobs.queue.cancel(r.id),
        lambda r: jobs.fail(jobs.claim_job(r), JobFailure("INTERNAL", "no")),
        lambda r: jobs.succeed(jobs.claim_job(r)) and jobs.queue.delete(r),
    ]
    for end in ends:
        end(jobs.submit(tenant="a"))
        assert jobs.usage() == {}


def test_the_retry_delay_falls_with_the_rate_of_ended_jobs(jobs):
    def retry_delay(ended):
        for _ in range(ended):
            jobs.queue.cancel(jobs.submit().id)
        records = [jobs.submit(bounds={"jobs": 10}) for _ in range(10)]
        with pytest.raises(AdmissionRejected) as refused:
            jobs.submit(bounds={"jobs": 10})
        for record in records:
            jobs.queue.cancel(record.id)
        return refused.value.retry_after

    slow = retry_delay(1)
    assert retry_delay(60) < slow


def test_a_tenant_above_its_rate_can_submit_again_after_the_retry_delay(jobs):
    rate = {"tenant_rate": 10.0, "tenant_burst": 0.5}
    big = jobs.submit(tenant="a", bounds=rate, cost=12)  # more than the burst's 5
    before = jobs.usage()
    with pytest.raises(
        AdmissionRejected, match=r"tenant_rate: tenant 'a' may ask for 10 images × passes a second"
    ) as refused:
        jobs.submit(tenant="a", bounds=rate, cost=1)
    assert not refused.value.never
    assert 0 < refused.value.retry_after <= 12 / 10 - 0.5
    assert jobs.usage() == before
    jobs.submit(tenant="b", bounds=rate, cost=12)
    jobs.submit(bounds=rate, cost=12)
    jobs.queue.cancel(big.id)  # gives nothing back to the rate limit
    time.sleep(refused.value.retry_after)  # the delay itself is under test
    jobs.submit(tenant="a", bounds=rate, cost=1)


def test_repeated_requests_and_cached_results_do_not_count_against_a_rate(jobs):
    rate = {"tenant_rate": 1.0}
    job = jobs.new(tenant="a", fingerprint="f")
    first = jobs.submit(job, bounds=rate)
    assert jobs.submit(job, bounds=rate).id == first.id
    with pytest.raises(AdmissionRejected):
        jobs.submit(tenant="a", fingerprint="f", bounds=rate)  # the equal job may still fail, and this one be computed
    jobs.succeed(jobs.claim_job(first))
    assert jobs.submit(tenant="a", fingerprint="f", bounds=rate).state is State.SUCCEEDED
    with pytest.raises(AdmissionRejected):
        jobs.submit(tenant="a", bounds=rate)
