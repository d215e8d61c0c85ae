"""Fair order of claims: by weight among priorities, evenly among tenants, first in first out for one caller."""

from __future__ import annotations

from collections import Counter

from convlens.jobs.queue.record import Priority


def claim_records(jobs, count):
    """Claim the next jobs and return their records in order."""
    return [claim.record for claim in jobs.claim(jobs=count)]


def claim_ids(jobs, count):
    """Claim the next jobs and return their ids in order."""
    return [record.id for record in claim_records(jobs, count)]


def test_jobs_of_one_caller_are_claimed_in_order_of_submission(jobs):
    records = [jobs.submit() for _ in range(20)]
    assert claim_ids(jobs, 20) == [record.id for record in records]


def test_a_flood_of_one_tenant_does_not_delay_another_tenants_job(jobs):
    for _ in range(30):
        jobs.submit(tenant="flood")
    claim_records(jobs, 10)
    one = jobs.submit(tenant="one")
    assert one.id in claim_ids(jobs, 2)


def test_tenants_share_in_proportion_to_the_cost_of_their_jobs(jobs):
    for _ in range(40):
        jobs.submit(tenant="small", cost=1)
        jobs.submit(tenant="large", cost=3)
    claims = Counter(record.tenant for record in claim_records(jobs, 40))
    assert 2.5 <= claims["small"] / claims["large"] <= 3.5


def test_higher_priorities_are_claimed_more_often_and_the_lowest_does_not_starve(jobs):
    for _ in range(33):
        for priority in Priority:
            jobs.submit(priority=priority)
    claims = Counter(record.priority for record in claim_records(jobs, 36))
    assert claims[Priority.HIGH] > 3 * claims[Priority.NORMAL] > 0
    assert claims[Priority.LOW] >= 1


def test_an_idle_tenant_accumulates_no_credit(jobs):
    jobs.submit(tenant="idle")
    claim_records(jobs, 1)
    for _ in range(30):
        jobs.submit(tenant="busy")
    claim_records(jobs, 20)
    for _ in range(10):
        jobs.submit(tenant="idle")
    claims = Counter(record.tenant for record in claim_records(jobs, 10))
    assert claims["idle"] <= 6


def test_multi_pass_jobs_are_claimed_only_for_free_multi_pass_threads(jobs):
    multi_pass = [jobs.submit(cost=50) for _ in range(2)]
    single_pass = jobs.submit()
    after = jobs.submit(tenant="other")

    def claim(multi_pass_threads):
        return [claim.record.id for claim in jobs.queue.claim("m", "w1", 1000, multi_pass_threads).jobs]

    assert sorted(claim(0)) == sorted([single_pass.id, after.id])
    assert claim(0) == []
    assert claim(1) == [multi_pass[0].id]
    assert claim(1) == [multi_pass[1].id]


def test_claiming_a_job_that_was_skipped_does_not_set_the_fair_order_back(jobs):
    """A tenant that comes later starts at the present virtual time, not at that of the skipped job."""
    jobs.submit(cost=50)
    for _ in range(30):
        jobs.submit(tenant="busy")
    jobs.queue.claim("m", "w1", 40, 0)
    jobs.queue.claim("m", "w1", 2, 1)
    for _ in range(10):
        jobs.submit(tenant="late")
    claims = Counter(record.tenant for record in claim_records(jobs, 10))
    assert claims["busy"] >= 4


def test_a_job_that_is_slow_to_decode_is_claimed_alone(jobs):
    """Jobs claimed with it would wait in the thread that decodes it."""
    slow = [jobs.submit(pixels=12_000_000) for _ in range(3)]
    assert [claim_ids(jobs, 9) for _ in slow] == [[record.id] for record in slow]


def test_jobs_that_are_slow_to_decode_do_not_delay_small_ones_of_the_same_tenant(jobs):
    for pixels in (12_000_000, 64_000_000):
        for _ in range(20):
            jobs.submit(pixels=pixels, cost=2 + pixels // 16_000_000)
    small = jobs.submit()
    assert small.id in {job_id for _ in range(3) for job_id in claim_ids(jobs, 1)}


def test_multi_pass_jobs_and_huge_images_have_separate_threads(jobs):
    multi_pass, huge = jobs.submit(cost=50), jobs.submit(pixels=64_000_000, cost=6)

    def claim(*threads):
        return [claim.record.id for claim in jobs.queue.claim("m", "w1", 1000, *threads).jobs]

    assert claim(0, 0) == []
    assert claim(0, 1) == [huge.id]
    assert claim(1, 0) == [multi_pass.id]
