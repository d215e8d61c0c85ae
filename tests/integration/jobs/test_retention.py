"""Records and results of ended jobs: how long they are kept, how many, how large, and which are dropped first."""

from __future__ import annotations

import dataclasses
import time

import pytest
from processes import until

from convlens.jobs.payloads.store import StoreFull
from convlens.jobs.queue.admission import AdmissionRejected
from convlens.jobs.queue.new_job import RequestIdReused
from convlens.jobs.queue.record import JobFailure, State

EQUAL = {"fingerprint": "f", "images": [("d1", b"first"), ("d2", b"second")]}


def listed_ids(jobs) -> set[str]:
    """The ids of all listed jobs."""
    return {record.id for record in jobs.queue.page(100, None, None)[0]}


def answer(jobs, **changes):
    """Run a job that is not kept, let its caller leave with the result, and return the record."""
    record = jobs.submit(keep=False, **changes)
    jobs.succeed(jobs.claim_job(record))
    jobs.leave(record)
    return record


def is_forgotten(jobs, record) -> bool:
    """Run the reconciler; True when the job's record is deleted."""
    jobs.reconcile()
    return jobs.get(record) is None


def test_a_job_that_is_not_kept_is_deleted_a_while_after_its_caller_left(jobs):
    jobs.queue.settings.answered_ttl = 3.0
    failed, cancelled, abandoned, done = (jobs.submit(keep=False, tenant="a") for _ in range(4))
    jobs.fail(jobs.claim_job(failed), JobFailure("INTERNAL", "no"))
    jobs.queue.cancel(cancelled.id)
    jobs.leave(abandoned)
    jobs.succeed(jobs.claim_job(done))
    assert not any(is_forgotten(jobs, record) for record in (failed, cancelled, done))
    jobs.leave(failed, cancelled, done)
    records = (failed, cancelled, abandoned, done)
    assert not any(is_forgotten(jobs, record) for record in records)
    assert until(lambda: all(is_forgotten(jobs, record) for record in records), 15)
    until(lambda: (jobs.reconcile(), jobs.usage() == {})[1])  # the cached result has expired, too
    jobs.queue.collect_garbage()
    kinds = {name.decode().split(":")[1] for name in jobs.queue.redis.scan_iter("convlens:*")}
    assert kinds <= {"sequence", "throughput", "usage", "tags", "flows", "claim"}  # claims expire after a minute


def test_a_cached_result_outlives_the_record_of_its_job(jobs):
    jobs.queue.settings.result_ttl = 60.0
    first = answer(jobs, **EQUAL)
    until(lambda: is_forgotten(jobs, first), 5)
    second = jobs.submit(**EQUAL)
    assert (second.state, second.cached) == (State.SUCCEEDED, True)
    assert jobs.queue.read_result(second, 0, 4) == b"body"


def test_a_job_whose_waiter_never_leaves_is_kept_as_long_as_its_result(jobs):
    record = jobs.submit(keep=False)
    jobs.succeed(jobs.claim_job(record))
    time.sleep(jobs.queue.settings.answered_ttl + 0.1)
    assert not is_forgotten(jobs, record)
    until(lambda: is_forgotten(jobs, record), 5)


def test_a_kept_job_becomes_a_tombstone_with_the_same_fields_when_its_result_expires(jobs):
    job = jobs.new(request_id="r", tenant="t", spec=b"s" * 500)
    jobs.submit(job)
    jobs.succeed(jobs.claim_job(job))
    before = jobs.get(job)
    bytes_before = jobs.queue.redis.memory_usage(f"convlens:job:{job.id}")
    until(lambda: (jobs.reconcile(), not jobs.get(job).token)[1], 5)
    record = jobs.get(job)
    assert record.expired
    assert jobs.queue.redis.memory_usage(f"convlens:job:{job.id}") < bytes_before < 1000
    fields = ("id", "state", "model", "tenant", "priority", "images", "request_id", "created", "deadline", "started",
              "ended", "expires", "attempts", "result_bytes", "cached", "failure")  # fmt: skip
    assert [getattr(record, name) for name in fields] == [getattr(before, name) for name in fields]
    assert jobs.submit(job).id == job.id
    with pytest.raises(RequestIdReused):
        jobs.submit(jobs.new(id=job.id))


def test_at_the_bound_of_known_jobs_tombstones_go_first_and_kept_jobs_never(jobs):
    tombstone = jobs.submit()
    jobs.succeed(jobs.claim_job(tombstone))
    until(lambda: (jobs.reconcile(), not jobs.get(tombstone).token)[1], 5)
    old, new = answer(jobs), answer(jobs)
    kept = jobs.submit()
    jobs.succeed(jobs.claim_job(kept))
    bounds = {"known_jobs": 4}
    for gone in (tombstone, old, new):
        live = jobs.submit(bounds=bounds)
        assert gone.id not in listed_ids(jobs)
        assert {kept.id, live.id} <= listed_ids(jobs)
    with pytest.raises(AdmissionRejected, match="max_known_jobs: there are 4 jobs known") as refused:
        jobs.submit(bounds=bounds)
    assert (refused.value.limit, refused.value.never) == ("max_known_jobs", False)
    assert len(listed_ids(jobs)) == 4
    jobs.queue.delete(kept)
    jobs.submit(bounds=bounds)


def test_a_tenant_at_its_share_of_known_jobs_displaces_only_its_own(jobs):
    other = answer(jobs, tenant="b")
    first, second = answer(jobs, tenant="a"), answer(jobs, tenant="a")
    jobs.submit(tenant="a", bounds={"known_jobs": 4})
    assert first.id not in listed_ids(jobs)
    assert {other.id, second.id} <= listed_ids(jobs)
    jobs.submit(tenant="a", bounds={"known_jobs": 4})
    with pytest.raises(AdmissionRejected, match="max_known_jobs: tenant 'a' has 2 jobs known"):
        jobs.submit(tenant="a", bounds={"known_jobs": 4})
    assert other.id in listed_ids(jobs)


def test_a_lowered_bound_of_known_jobs_is_reached_gradually_without_a_refusal(jobs):
    for _ in range(40):
        jobs.queue.cancel(jobs.submit(keep=False).id)
    for record in jobs.queue.page(100, None, None)[0]:
        jobs.queue.leave([(record.id, jobs.queue.redis.hget(f"convlens:job:{record.id}", "waiter").decode())])
    counts = []
    for _ in range(4):
        jobs.queue.cancel(jobs.submit(bounds={"known_jobs": 5}).id)
        counts.append(len(listed_ids(jobs)))
    assert counts[0] < 40
    assert counts[-1] <= 5


def test_a_repeated_call_gets_its_ended_job_and_prevents_its_deletion(jobs):
    job = jobs.new(keep=False)
    record = jobs.submit(job)
    jobs.succeed(jobs.claim_job(record))
    jobs.leave(record)
    assert "cached_bytes" in jobs.usage()
    again = jobs.submit(job)
    assert (again.id, again.state) == (record.id, State.SUCCEEDED)
    assert "cached_bytes" not in jobs.usage()
    time.sleep(jobs.queue.settings.answered_ttl + 0.1)
    jobs.reconcile()
    assert jobs.queue.read_result(again, 0, 4) == b"body"
    jobs.leave(again)
    assert "cached_bytes" in jobs.usage()


def test_a_repeated_call_whose_cached_result_was_dropped_is_computed_again(jobs):
    job = jobs.new(keep=False)
    record = jobs.submit(job)
    jobs.succeed(jobs.claim_job(record))
    jobs.leave(record)
    jobs.submit(bounds={"result_bytes": 150}, reserved=145)
    assert "cached_bytes" not in jobs.usage()
    assert jobs.submit(job).state is State.QUEUED


def test_an_answered_job_submitted_again_with_keep_is_kept(jobs):
    record = answer(jobs, id="0" * 32, fingerprint="f")
    kept = jobs.submit(id="0" * 32, fingerprint="f", keep=True)
    assert kept.state is State.SUCCEEDED
    time.sleep(jobs.queue.settings.answered_ttl + 0.1)
    assert not is_forgotten(jobs, record)
    assert jobs.usage() == {"result_bytes": 10}


def test_cached_results_stay_within_their_share_between_submissions(jobs):
    """A result has 400 bytes and a header of 6, so an eighth of 4,000 bytes fits one of them."""
    records = [jobs.submit(keep=False) for _ in range(5)]
    for record in records:
        jobs.succeed(jobs.claim_job(record), b"r" * 400)
    jobs.submit(bounds={"result_bytes": 4000}, reserved=1)
    for record in records:
        jobs.leave(record)
        assert jobs.usage()["cached_bytes"] == 406


def test_the_reconciler_enforces_a_lowered_share_of_cached_results(jobs):
    for _ in range(5):
        answer(jobs)
    assert jobs.usage()["cached_bytes"] == 50
    jobs.queue.bounds = dataclasses.replace(jobs.bounds, result_bytes=160)
    jobs.reconcile()
    assert jobs.usage()["cached_bytes"] == 20


def test_in_a_nearly_full_redis_cached_results_and_tombstones_are_dropped(jobs):
    tombstone = jobs.submit()
    jobs.succeed(jobs.claim_job(tombstone))
    until(lambda: (jobs.reconcile(), not jobs.get(tombstone).token)[1], 5)
    answer(jobs)
    kept = jobs.submit()
    jobs.succeed(jobs.claim_job(kept))
    used = jobs.queue.redis.info("memory")["used_memory"]
    jobs.queue.redis.config_set("maxmemory", int(used / 0.95))
    try:
        jobs.reconcile()
        assert "cached_bytes" not in jobs.usage()
        assert jobs.get(tombstone) is None
        assert jobs.queue.read_result(jobs.get(kept), 0, 4) == b"body"
    finally:
        jobs.queue.redis.config_set("maxmemory", 0)


def test_a_submission_to_a_full_redis_is_retried_after_cached_results_were_dropped(jobs):
    jobs.queue.settings.result_ttl = 60.0
    for _ in range(500):
        answer(jobs, spec=b"s" * 1000, reserved=1 << 10)
    memory = jobs.queue.redis.info("memory")
    jobs.queue.redis.config_set("maxmemory", memory["used_memory"] - memory["mem_not_counted_for_evict"] - 50_000)
    try:
        before = jobs.usage()["cached_bytes"]
        assert jobs.submit().state is State.QUEUED
        assert jobs.usage()["cached_bytes"] < before
        jobs.queue.redis.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            jobs.submit()
    finally:
        jobs.queue.redis.config_set("maxmemory", 0)


def test_a_waiter_that_leaves_twice_affects_no_other_waiter_and_no_later_job(jobs):
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


def test_a_late_deletion_does_not_affect_a_later_job_of_the_same_id(jobs):
    job = jobs.new()
    jobs.submit(job)
    old = jobs.queue.cancel(job.id)
    jobs.queue.delete(old)
    time.sleep(0.002)  # so that the creation times differ
    jobs.submit(job)
    jobs.queue.cancel(job.id)
    jobs.queue.delete(old)
    assert jobs.get(job).state is State.CANCELLED


def test_a_job_can_be_finished_again_after_its_record_was_deleted(jobs):
    jobs.queue.settings.result_ttl = 60.0
    record = jobs.submit(keep=False, **EQUAL)
    claim = jobs.claim_job(record)
    completion = jobs.queue.store(claim, [b"body", b"header"], 4)
    assert jobs.queue.finish([completion]) == [True]
    jobs.leave(record)
    until(lambda: is_forgotten(jobs, record), 5)
    assert jobs.queue.finish([completion]) == [True]
    assert jobs.queue.read_result(jobs.submit(**EQUAL), 0, 4) == b"body"


def test_a_page_scans_a_bounded_number_of_records_and_returns_a_token_to_continue(jobs, monkeypatch):
    monkeypatch.setattr("convlens.jobs.queue.producer.SCANNED", 6)
    monkeypatch.setattr("convlens.jobs.queue.producer._SCANNED_AT_ONCE", 3)
    cancelled = [jobs.submit().id for _ in range(2)]
    for job_id in cancelled:
        jobs.queue.cancel(job_id)
    for _ in range(8):
        jobs.submit()
    pages, token = [], None
    while True:
        page, token = jobs.queue.page(10, token, State.CANCELLED)
        pages.append([record.id for record in page])
        if token is None:
            break
    assert pages == [[], cancelled[::-1]]


def test_a_listing_has_each_jobs_position_in_its_queue(jobs):
    first, second = jobs.submit(), jobs.submit()
    jobs.submit(**EQUAL)
    coalesced = jobs.submit(**EQUAL)
    positions = {record.id: record.position for record in jobs.queue.page(10, None, State.QUEUED)[0]}
    assert (positions[first.id], positions[second.id], positions[coalesced.id]) == (0, 1, None)
    jobs.claim(jobs=3)
    assert coalesced.id in {record.id for record in jobs.queue.page(10, None, State.RUNNING)[0]}


@pytest.mark.parametrize("end", ["cancel", "leave", "expire"])
def test_the_end_of_an_equal_job_takes_the_same_work_however_many_there_are(jobs, end):
    def calls() -> int:
        """The number of commands that Redis has run, those of scripts included."""
        return sum(command["calls"] for command in jobs.queue.redis.info("commandstats").values())

    def calls_per_job(number: int) -> float:
        bounds = {"jobs": 10000}
        records = [jobs.submit(keep=False, bounds=bounds, **EQUAL, timeout=0.4) for _ in range(number)]
        jobs.claim()  # so that the first one is running
        jobs.queue.redis.config_resetstat()
        match end:
            case "cancel":
                for record in records:
                    jobs.queue.cancel(record.id)
            case "leave":
                jobs.leave(*records)
            case "expire":
                until(lambda: (jobs.queue.reconcile(), jobs.get(records[-1]).state is State.EXPIRED)[1])
                until(lambda: (jobs.queue.reconcile(), all(jobs.get(record).state.final for record in records))[1])
        assert all(jobs.get(record).state.final for record in records[:: max(1, number // 10)])
        return calls() / number

    assert calls_per_job(200) < 1.5 * calls_per_job(20) + 20


def test_a_repeated_call_can_extend_the_deadline_of_its_job_but_not_shorten_it(jobs):
    first = jobs.submit(id="again", timeout=1.0, **EQUAL)
    jobs.submit(id="again", timeout=300.0, **EQUAL)
    assert jobs.get(first).deadline > first.deadline + 200
    jobs.submit(id="again", timeout=2.0, **EQUAL)
    assert jobs.get(first).deadline > first.deadline + 200


def test_an_expired_job_is_queued_again_by_a_repeated_call(jobs):
    first = jobs.submit(id="again", timeout=0.2, **EQUAL)
    until(lambda: (jobs.queue.reconcile(), jobs.get(first).state)[1] is State.EXPIRED, 5)
    assert jobs.submit(id="again", timeout=60.0, **EQUAL).state is State.QUEUED


def test_the_reconciler_corrects_counters_that_would_reject_every_job(jobs):
    jobs.queue.redis.hset(
        "convlens:usage", mapping={"image_bytes": 1 << 60, "pixels": 1 << 60, "result_bytes": 1 << 60}
    )
    jobs.queue.redis.set("convlens:sequence", (1 << 63) - 1)
    jobs.queue.reconcile()
    assert jobs.submit(**EQUAL).state is State.QUEUED
