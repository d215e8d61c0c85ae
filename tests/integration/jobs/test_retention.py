"""What is kept of jobs that have ended: for how long, how many, how large, and what goes first."""

from __future__ import annotations

import dataclasses
import time

import pytest
from processes import until

from convlens.jobs.payloads.store import StoreFull
from convlens.jobs.queue.admission import Full
from convlens.jobs.queue.new_job import RequestIdReused
from convlens.jobs.queue.record import JobFailure, State

EQUAL = {"fingerprint": "f", "images": [("d1", b"first"), ("d2", b"second")]}


def known(jobs) -> set[str]:
    """The ids of all jobs that are listed."""
    return {record.id for record in jobs.queue.page(100, None, None)[0]}


def answered(jobs, **changes):
    """The record of a job that nobody asked to keep, whose caller has its result."""
    record = jobs.submit(keep=False, **changes)
    jobs.succeed(jobs.take(record))
    jobs.leave(record)
    return record


def forgotten(jobs, record) -> bool:
    """Whether a job is unknown, after a look of the reconciler."""
    jobs.reconcile()
    return jobs.get(record) is None


def test_a_job_that_nobody_asked_to_keep_is_known_for_a_while_after_its_caller_left_and_leaves_nothing(jobs):
    failed, cancelled, abandoned, done = (jobs.submit(keep=False, tenant="a") for _ in range(4))
    jobs.fail(jobs.take(failed), JobFailure("INTERNAL", "no"))
    jobs.queue.cancel(cancelled.id)
    jobs.leave(abandoned)
    jobs.succeed(jobs.take(done))
    assert not any(forgotten(jobs, it) for it in (failed, cancelled, done))
    jobs.leave(failed, cancelled, done)
    assert not any(forgotten(jobs, it) for it in (failed, cancelled, abandoned, done))
    assert until(lambda: all(forgotten(jobs, it) for it in (failed, cancelled, abandoned, done)), 5)
    until(lambda: (jobs.reconcile(), jobs.load() == {})[1])  # the cached result's time is over, too
    jobs.queue.collect_garbage()
    left = {name.decode().split(":")[1] for name in jobs.queue.redis.scan_iter("convlens:*")}
    assert left <= {"sequence", "drain", "load", "tags", "flows", "awake", "claim"}  # claims go after a minute


def test_a_cached_result_answers_equal_requests_though_the_job_that_made_it_is_forgotten(jobs):
    jobs.queue.settings.result_ttl = 60.0
    first = answered(jobs, **EQUAL)
    until(lambda: forgotten(jobs, first), 5)
    second = jobs.submit(**EQUAL)
    assert (second.state, second.cached) == (State.SUCCEEDED, True)
    assert jobs.queue.read_result(second, 0, 4) == b"body"


def test_a_job_whose_waiter_never_leaves_is_known_as_long_as_its_result_and_no_longer(jobs):
    record = jobs.submit(keep=False)
    jobs.succeed(jobs.take(record))
    time.sleep(jobs.queue.settings.answered_ttl + 0.1)
    assert not forgotten(jobs, record)
    until(lambda: forgotten(jobs, record), 5)


def test_a_kept_job_is_known_after_its_result_as_a_small_record_that_tells_the_same(jobs):
    job = jobs.new(request_id="r", tenant="t", spec=b"s" * 500)
    jobs.submit(job)
    jobs.succeed(jobs.take(job))
    before = jobs.get(job)
    live = jobs.queue.redis.memory_usage(f"convlens:job:{job.id}")
    until(lambda: (jobs.reconcile(), not jobs.get(job).token)[1], 5)
    record = jobs.get(job)
    assert record.expired
    assert jobs.queue.redis.memory_usage(f"convlens:job:{job.id}") < live < 1000
    told = ("id", "state", "model", "tenant", "priority", "images", "request_id", "created", "deadline", "started",
            "ended", "expires", "attempts", "result_bytes", "cached", "failure")  # fmt: skip
    assert [getattr(record, it) for it in told] == [getattr(before, it) for it in told]
    assert jobs.submit(job).id == job.id
    with pytest.raises(RequestIdReused):
        jobs.submit(jobs.new(id=job.id))


def test_where_no_more_may_be_known_tombstones_go_first_and_what_is_promised_never(jobs):
    tombstone = jobs.submit()
    jobs.succeed(jobs.take(tombstone))
    until(lambda: (jobs.reconcile(), not jobs.get(tombstone).token)[1], 5)
    old, new = answered(jobs), answered(jobs)
    kept = jobs.submit()
    jobs.succeed(jobs.take(kept))
    bounds = {"known_jobs": 4}
    for gone in (tombstone, old, new):
        live = jobs.submit(bounds=bounds)
        assert gone.id not in known(jobs)
        assert {kept.id, live.id} <= known(jobs)
    with pytest.raises(Full, match="max_known_jobs: there are 4 jobs known") as refused:
        jobs.submit(bounds=bounds)
    assert (refused.value.limit, refused.value.never) == ("max_known_jobs", False)
    assert len(known(jobs)) == 4
    jobs.queue.delete(kept)
    jobs.submit(bounds=bounds)


def test_a_tenant_fills_its_own_share_of_the_jobs_known_and_what_goes_is_its_own(jobs):
    other = answered(jobs, tenant="b")
    first, second = answered(jobs, tenant="a"), answered(jobs, tenant="a")
    jobs.submit(tenant="a", bounds={"known_jobs": 4})
    assert first.id not in known(jobs)
    assert {other.id, second.id} <= known(jobs)
    jobs.submit(tenant="a", bounds={"known_jobs": 4})
    with pytest.raises(Full, match="max_known_jobs: tenant 'a' has 2 jobs known"):
        jobs.submit(tenant="a", bounds={"known_jobs": 4})
    assert other.id in known(jobs)


def test_a_lowered_bound_is_reached_a_few_at_a_time_without_a_refusal(jobs):
    for _ in range(40):
        jobs.queue.cancel(jobs.submit(keep=False).id)
    for record in jobs.queue.page(100, None, None)[0]:
        jobs.queue.leave([(record.id, jobs.queue.redis.hget(f"convlens:job:{record.id}", "waiter").decode())])
    counts = []
    for _ in range(4):
        jobs.queue.cancel(jobs.submit(bounds={"known_jobs": 5}).id)
        counts.append(len(known(jobs)))
    assert counts[0] < 40
    assert counts[-1] <= 5


def test_a_repeated_call_finds_its_job_after_the_answer_was_lost_and_keeps_it_from_being_forgotten(jobs):
    job = jobs.new(keep=False)
    record = jobs.submit(job)
    jobs.succeed(jobs.take(record))
    jobs.leave(record)
    assert "cached_bytes" in jobs.load()
    again = jobs.submit(job)
    assert (again.id, again.state) == (record.id, State.SUCCEEDED)
    assert "cached_bytes" not in jobs.load()
    time.sleep(jobs.queue.settings.answered_ttl + 0.1)
    jobs.reconcile()
    assert jobs.queue.read_result(again, 0, 4) == b"body"
    jobs.leave(again)
    assert "cached_bytes" in jobs.load()


def test_a_repeated_call_whose_cached_result_went_is_computed_anew(jobs):
    job = jobs.new(keep=False)
    record = jobs.submit(job)
    jobs.succeed(jobs.take(record))
    jobs.leave(record)
    jobs.submit(bounds={"result_bytes": 150}, reserved=145)
    assert "cached_bytes" not in jobs.load()
    assert jobs.submit(job).state is State.QUEUED


def test_a_job_that_somebody_keeps_after_all_is_kept(jobs):
    record = answered(jobs, id="0" * 32, fingerprint="f")
    kept = jobs.submit(id="0" * 32, fingerprint="f", keep=True)
    assert kept.state is State.SUCCEEDED
    time.sleep(jobs.queue.settings.answered_ttl + 0.1)
    assert not forgotten(jobs, record)
    assert jobs.load() == {"result_bytes": 10}


def test_cached_results_keep_to_their_share_also_between_submissions(jobs):
    """A result of 400 bytes and a header of 6; an eighth of 4,000."""
    records = [jobs.submit(keep=False) for _ in range(5)]
    for record in records:
        jobs.succeed(jobs.take(record), b"r" * 400)
    jobs.submit(bounds={"result_bytes": 4000}, reserved=1)
    for record in records:
        jobs.leave(record)
        assert jobs.load()["cached_bytes"] == 406


def test_a_lowered_share_is_kept_to_by_the_reconciler(jobs):
    for _ in range(5):
        answered(jobs)
    assert jobs.load()["cached_bytes"] == 50
    jobs.queue.bounds = dataclasses.replace(jobs.bounds, result_bytes=160)
    jobs.reconcile()
    assert jobs.load()["cached_bytes"] == 20


def test_a_redis_that_is_nearly_full_drops_what_nobody_was_promised_before_it_refuses_anybody(jobs):
    tombstone = jobs.submit()
    jobs.succeed(jobs.take(tombstone))
    until(lambda: (jobs.reconcile(), not jobs.get(tombstone).token)[1], 5)
    answered(jobs)
    kept = jobs.submit()
    jobs.succeed(jobs.take(kept))
    used = jobs.queue.redis.info("memory")["used_memory"]
    jobs.queue.redis.config_set("maxmemory", int(used / 0.95))
    try:
        jobs.reconcile()
        assert "cached_bytes" not in jobs.load()
        assert jobs.get(tombstone) is None
        assert jobs.queue.read_result(jobs.get(kept), 0, 4) == b"body"
    finally:
        jobs.queue.redis.config_set("maxmemory", 0)


def test_a_submission_that_redis_has_no_memory_for_is_tried_again_once_something_went(jobs):
    jobs.queue.settings.result_ttl = 60.0
    for _ in range(500):
        answered(jobs, spec=b"s" * 1000, reserved=1 << 10)
    memory = jobs.queue.redis.info("memory")
    jobs.queue.redis.config_set("maxmemory", memory["used_memory"] - memory["mem_not_counted_for_evict"] - 50_000)
    try:
        held = jobs.load()["cached_bytes"]
        assert jobs.submit().state is State.QUEUED
        assert jobs.load()["cached_bytes"] < held
        jobs.queue.redis.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            jobs.submit()
    finally:
        jobs.queue.redis.config_set("maxmemory", 0)


def test_a_waiter_that_leaves_again_takes_nobodys_place_and_none_of_a_job_made_anew(jobs):
    job = jobs.new(keep=False)
    first = jobs.submit(job)
    second = jobs.submit(job)
    third = jobs.queue.join(first)
    jobs.leave(first, first, first, third, third)
    assert jobs.get(job).state is State.QUEUED
    jobs.leave(second)
    assert jobs.get(job).failure.reason == "ABANDONED"
    anew = jobs.submit(job)
    jobs.leave(first, second, third)
    assert jobs.get(job).state is State.QUEUED
    jobs.queue.cancel(job.id)
    jobs.queue.delete(jobs.get(job))
    last = jobs.submit(job)
    jobs.leave(anew)
    assert jobs.get(job).state is State.QUEUED
    jobs.leave(last)
    assert jobs.get(job).failure.reason == "ABANDONED"


def test_a_deletion_that_comes_late_leaves_the_job_that_was_made_anew(jobs):
    job = jobs.new()
    jobs.submit(job)
    old = jobs.queue.cancel(job.id)
    jobs.queue.delete(old)
    time.sleep(0.002)  # made at another millisecond
    jobs.submit(job)
    jobs.queue.cancel(job.id)
    jobs.queue.delete(old)
    assert jobs.get(job).state is State.CANCELLED


def test_a_result_reported_again_after_its_record_went_counts_still(jobs):
    jobs.queue.settings.result_ttl = 60.0
    record = jobs.submit(keep=False, **EQUAL)
    claim = jobs.take(record)
    end = jobs.queue.store(claim, [b"body", b"header"], 4)
    assert jobs.queue.finish([end]) == [True]
    jobs.leave(record)
    until(lambda: forgotten(jobs, record), 5)
    assert jobs.queue.finish([end]) == [True]
    assert jobs.queue.read_result(jobs.submit(**EQUAL), 0, 4) == b"body"


def test_a_page_looks_at_a_bounded_number_of_records_and_says_where_to_go_on(jobs, monkeypatch):
    monkeypatch.setattr("convlens.jobs.queue.producer.SCANNED", 6)
    monkeypatch.setattr("convlens.jobs.queue.producer._SCANNED_AT_ONCE", 3)
    wanted = [jobs.submit().id for _ in range(2)]
    for name in wanted:
        jobs.queue.cancel(name)
    for _ in range(8):
        jobs.submit()
    pages, token = [], None
    while True:
        page, token = jobs.queue.page(10, token, State.CANCELLED)
        pages.append([record.id for record in page])
        if token is None:
            break
    assert pages == [[], wanted[::-1]]


def test_a_listing_tells_each_jobs_place_in_its_queue(jobs):
    first, second = jobs.submit(), jobs.submit()
    jobs.submit(**EQUAL)
    follower = jobs.submit(**EQUAL)
    listed = {record.id: record.position for record in jobs.queue.page(10, None, State.QUEUED)[0]}
    assert (listed[first.id], listed[second.id], listed[follower.id]) == (0, 1, None)
    jobs.claim(jobs=3)
    assert follower.id in {record.id for record in jobs.queue.page(10, None, State.RUNNING)[0]}


@pytest.mark.parametrize("end", ["cancel", "leave", "expire"])
def test_each_equal_job_that_ends_costs_redis_the_same_however_many_there_are(jobs, end):
    def calls() -> int:
        """All that Redis was asked, but for what others than scripts did."""
        return sum(it["calls"] for it in jobs.queue.redis.info("commandstats").values())

    def cost(number: int) -> float:
        wide = {"jobs": 10000}
        records = [jobs.submit(keep=False, bounds=wide, **EQUAL, timeout=0.4) for _ in range(number)]
        jobs.claim()  # the first is under way
        jobs.queue.redis.config_resetstat()
        match end:
            case "cancel":
                for record in records:
                    jobs.queue.cancel(record.id)
            case "leave":
                jobs.leave(*records)
            case "expire":
                until(lambda: (jobs.queue.reconcile(), jobs.get(records[-1]).state is State.EXPIRED)[1])
                until(lambda: (jobs.queue.reconcile(), all(jobs.get(it).state.final for it in records))[1])
        assert all(jobs.get(it).state.final for it in records[:: max(1, number // 10)])
        return calls() / number

    few, many = cost(20), cost(200)
    assert many < 1.5 * few + 20


def test_who_repeats_a_call_may_have_more_time_for_its_job(jobs):
    first = jobs.submit(id="again", timeout=1.0, **EQUAL)
    jobs.submit(id="again", timeout=300.0, **EQUAL)
    assert jobs.get(first).deadline > first.deadline + 200
    jobs.submit(id="again", timeout=2.0, **EQUAL)
    assert jobs.get(first).deadline > first.deadline + 200


def test_a_job_whose_time_was_over_is_made_anew_by_a_repeated_call(jobs):
    first = jobs.submit(id="again", timeout=0.2, **EQUAL)
    until(lambda: (jobs.queue.reconcile(), jobs.get(first).state)[1] is State.EXPIRED, 5)
    assert jobs.submit(id="again", timeout=60.0, **EQUAL).state is State.QUEUED


def test_counters_that_refuse_everybody_are_put_right(jobs):
    jobs.queue.redis.hset("convlens:load", mapping={"image_bytes": 1 << 60, "pixels": 1 << 60, "result_bytes": 1 << 60})
    jobs.queue.redis.set("convlens:sequence", (1 << 63) - 1)
    jobs.queue.reconcile()
    assert jobs.submit(**EQUAL).state is State.QUEUED
