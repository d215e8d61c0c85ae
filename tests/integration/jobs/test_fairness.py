"""Whose turn it is: by weight among priorities, evenly among tenants, first in first out for one caller."""

from __future__ import annotations

from collections import Counter

from convlens.jobs.queue.record import Priority


def order(jobs, count):
    """The next jobs in the order they are claimed."""
    return [claim.record for claim in jobs.claim(jobs=count)]


def test_one_callers_jobs_come_in_their_order(jobs):
    records = [jobs.submit() for _ in range(20)]
    assert [it.id for it in order(jobs, 20)] == [it.id for it in records]


def test_a_flood_of_one_tenant_leaves_another_its_turn(jobs):
    for _ in range(30):
        jobs.submit(tenant="flood")
    order(jobs, 10)
    one = jobs.submit(tenant="one")
    assert one.id in {it.id for it in order(jobs, 2)}


def test_tenants_share_by_what_their_jobs_cost(jobs):
    for _ in range(40):
        jobs.submit(tenant="small", cost=1)
        jobs.submit(tenant="large", cost=3)
    taken = Counter(it.tenant for it in order(jobs, 40))
    assert 2.5 <= taken["small"] / taken["large"] <= 3.5


def test_better_priorities_come_first_and_the_last_one_does_not_starve(jobs):
    for _ in range(33):
        for priority in Priority:
            jobs.submit(priority=priority)
    taken = Counter(it.priority for it in order(jobs, 36))
    assert taken[Priority.HIGH] > 3 * taken[Priority.NORMAL] > 0
    assert taken[Priority.LOW] >= 1


def test_who_was_idle_saves_up_no_turns(jobs):
    jobs.submit(tenant="idle")
    order(jobs, 1)
    for _ in range(30):
        jobs.submit(tenant="busy")
    order(jobs, 20)
    for _ in range(10):
        jobs.submit(tenant="idle")
    taken = Counter(it.tenant for it in order(jobs, 10))
    assert taken["idle"] <= 6


def test_jobs_of_many_passes_are_taken_only_by_who_has_a_thread_for_them(jobs):
    many = [jobs.submit(cost=50) for _ in range(2)]
    one = jobs.submit()
    after = jobs.submit(tenant="other")

    def taken(allowed):
        return [it.record.id for it in jobs.queue.claim("m", "w1", 1000, allowed).jobs]

    assert sorted(taken(0)) == sorted([one.id, after.id])
    assert taken(0) == []
    assert taken(1) == [many[0].id]
    assert taken(1) == [many[1].id]


def test_a_job_that_was_passed_over_turns_nothing_back(jobs):
    """Who comes after it begins where the others are."""
    jobs.submit(cost=50)
    for _ in range(30):
        jobs.submit(tenant="busy")
    jobs.queue.claim("m", "w1", 40, 0)
    jobs.queue.claim("m", "w1", 2, 1)
    for _ in range(10):
        jobs.submit(tenant="late")
    taken = Counter(it.tenant for it in order(jobs, 10))
    assert taken["busy"] >= 4


def test_a_job_that_takes_long_to_decode_is_claimed_without_others(jobs):
    """Those behind it would wait in the thread that decodes it."""
    slow = [jobs.submit(pixels=12_000_000) for _ in range(3)]
    assert [[it.id for it in order(jobs, 9)] for _ in slow] == [[it.id] for it in slow]


def test_jobs_that_take_long_to_decode_leave_others_their_turn(jobs):
    """Of the same tenant, too: strangers without one share theirs."""
    for pixels in (12_000_000, 64_000_000):
        for _ in range(20):
            jobs.submit(pixels=pixels, cost=2 + pixels // 16_000_000)
    small = jobs.submit()
    assert small.id in {it.id for _ in range(3) for it in order(jobs, 1)}


def test_huge_images_and_many_passes_have_threads_of_their_own(jobs):
    many, huge = jobs.submit(cost=50), jobs.submit(pixels=64_000_000, cost=6)

    def taken(*allowed):
        return [it.record.id for it in jobs.queue.claim("m", "w1", 1000, *allowed).jobs]

    assert taken(0, 0) == []
    assert taken(0, 1) == [huge.id]
    assert taken(1, 0) == [many.id]
