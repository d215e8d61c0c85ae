"""The life cycle of a job in the queue: submitted, claimed, finished, cancelled, expired, listed, deleted."""

from __future__ import annotations

import time

import pytest
from processes import full, until

from convlens.jobs.payloads.store import PayloadGone
from convlens.jobs.queue.admission import AdmissionRejected
from convlens.jobs.queue.consumer import Completion
from convlens.jobs.queue.new_job import RequestIdReused
from convlens.jobs.queue.producer import JobNotFinished
from convlens.jobs.queue.record import JobFailure, State


def test_a_job_is_queued_claimed_and_finished_and_its_result_is_read_back(jobs):
    record = jobs.submit()
    assert record.state is State.QUEUED
    assert jobs.get(record).position == 0
    claim = jobs.claim_job(record)
    assert (claim.record.state, claim.record.attempts, claim.spec) == (State.RUNNING, 1, b"spec")
    assert jobs.queue.read_images([claim]) == [[b"image", b"bytes"]]
    body = [b"a" * 700_000, memoryview(b"b" * 900_000), b"c" * 1_500_000]
    assert jobs.queue.finish([jobs.queue.store(claim, [*body, b"header"], sum(map(len, body)))]) == [True]
    record = jobs.get(record)
    assert record.state is State.SUCCEEDED
    assert record.result_bytes == 3_100_000
    assert jobs.queue.read_result(record, 3_100_000, record.header_size) == b"header"
    assert jobs.queue.read_result(record, 0, 3_100_000) == b"".join(map(bytes, body))
    assert jobs.queue.read_result(record, 699_999, 3) == b"abb"
    assert jobs.queue.read_result(record, 1_048_570, 20) == b"b" * 20


def test_only_one_worker_claims_a_job(jobs):
    record = jobs.submit()
    assert len(jobs.claim("w1")) == 1
    assert jobs.claim("w2") == []
    assert jobs.get(record).worker == "w1"


def test_a_claim_is_limited_to_a_number_of_images_but_has_at_least_one_job(jobs):
    for _ in range(4):
        jobs.submit()
    assert len(jobs.queue.claim("m", "w1", 1).jobs) == 1
    assert len(jobs.queue.claim("m", "w1", 5).jobs) == 2
    assert len(jobs.queue.claim("m", "w1", 5).jobs) == 1


def test_a_lost_workers_job_is_claimed_by_another_and_its_late_result_is_ignored(jobs):
    record = jobs.submit()
    late = jobs.claim_job(record, "w1")
    jobs.reconcile_until(State.QUEUED, record)
    second = jobs.claim_job(record, "w2")
    assert second.record.attempts == 2
    assert jobs.succeed(late, b"wrong") is False
    assert jobs.fail(late, JobFailure("INTERNAL", "late")) is False
    assert jobs.queue.renew([late, second]) == {record.id}
    assert jobs.succeed(second, b"right")
    assert jobs.queue.read_result(jobs.get(record), 0, 5) == b"right"


def test_a_job_with_renewed_leases_stays_running(jobs):
    record = jobs.submit()
    claim = jobs.claim_job(record)
    end = time.monotonic() + 0.9
    while time.monotonic() < end:
        assert jobs.queue.renew([claim]) == set()
        assert jobs.reconcile() == {}
        time.sleep(0.05)
    assert jobs.get(record).state is State.RUNNING


def test_a_job_that_loses_every_worker_fails_after_its_attempts(jobs):
    record = jobs.submit()
    for worker in ("w1", "w2"):
        assert jobs.claim(worker)
        jobs.reconcile_until(State.QUEUED if worker == "w1" else State.FAILED, record)
    record = jobs.get(record)
    assert record.state is State.FAILED
    assert record.failure.reason == "ATTEMPTS_EXHAUSTED"
    assert "w2" in record.failure.message


def test_a_job_can_be_finished_repeatedly_with_the_same_result_only(jobs):
    record = jobs.submit()
    claim = jobs.claim_job(record)
    assert jobs.succeed(claim)
    assert jobs.succeed(claim)
    assert jobs.fail(claim, JobFailure("INTERNAL", "no")) is False
    assert jobs.get(record).state is State.SUCCEEDED


def test_a_released_job_returns_to_its_position_without_a_counted_attempt(jobs):
    first, second = jobs.submit(), jobs.submit()
    claim = jobs.claim_job(first)
    assert jobs.get(second).position == 0
    assert jobs.queue.release(claim)
    record = jobs.get(first)
    assert (record.state, record.attempts) == (State.QUEUED, 0)
    assert jobs.get(record).position == 0
    assert jobs.get(second).position == 1


def test_deadlines_end_queued_and_running_jobs(jobs):
    running, queued = jobs.submit(timeout=0.2), jobs.submit(timeout=0.2)
    claim = jobs.claim_job(running)
    expired = (State.EXPIRED, State.EXPIRED)
    until(lambda: jobs.reconcile() == {} and (jobs.get(running).state, jobs.get(queued).state) == expired)
    assert "running" in jobs.get(running).failure.message
    assert "queued" in jobs.get(queued).failure.message
    assert jobs.succeed(claim) is False
    assert jobs.usage() == {}


def test_cancel_ends_live_jobs_and_does_not_change_ended_ones(jobs):
    running, done, queued = jobs.submit(), jobs.submit(), jobs.submit()
    claim = jobs.claim_job(running)
    jobs.succeed(jobs.claim_job(done))
    for record, state in ((queued, State.CANCELLED), (running, State.CANCELLED), (done, State.SUCCEEDED)):
        assert jobs.queue.cancel(record.id).state is state
    assert jobs.queue.cancel("0" * 32) is None
    assert jobs.queue.renew([claim]) == {running.id}
    assert jobs.claim() == []


def test_a_job_that_is_not_kept_is_cancelled_when_its_last_waiter_leaves(jobs):
    job = jobs.new(keep=False)
    record = jobs.submit(job)
    other = jobs.queue.join(record)
    jobs.leave(record, record)
    assert jobs.get(record).state is State.QUEUED
    jobs.leave(other)
    assert jobs.get(record).failure.reason == "ABANDONED"
    assert jobs.submit(job).state is State.QUEUED
    kept = jobs.submit()
    jobs.leave(jobs.queue.join(kept))
    assert jobs.get(kept).state is State.QUEUED


def test_a_repeated_request_gets_its_job_and_a_different_one_is_refused(jobs):
    job = jobs.new()
    record = jobs.submit(job)
    assert jobs.submit(job).id == record.id
    with pytest.raises(RequestIdReused):
        jobs.submit(jobs.new(id=job.id))
    claim = jobs.claim_job(record)
    assert jobs.claim() == []
    assert jobs.queue.read_images([claim]) == [[b"image", b"bytes"]]


def test_the_record_of_a_job_outlives_its_expired_result(jobs):
    record = jobs.submit()
    jobs.succeed(jobs.claim_job(record))

    def is_expired():
        jobs.reconcile()
        jobs.queue.collect_garbage()
        try:
            jobs.queue.read_result(jobs.get(record), 0, 1)
        except PayloadGone:
            return True
        return False

    until(is_expired)
    record = jobs.get(record)
    assert record.state is State.SUCCEEDED
    assert record.expires < time.time()
    assert jobs.usage() == {}


def test_deleting_an_ended_job_removes_its_record_and_payloads(jobs):
    record = jobs.submit()
    with pytest.raises(JobNotFinished):
        jobs.queue.delete(record)
    claim = jobs.claim_job(record)
    jobs.succeed(claim)
    record = jobs.get(record)
    jobs.queue.delete(record)
    assert jobs.get(record) is None
    jobs.queue.collect_garbage()
    with pytest.raises(PayloadGone):
        jobs.queue.read_result(record, 0, 1)
    assert jobs.queue.read_images([claim]) == [[]]


def test_jobs_are_listed_newest_first_in_pages(jobs):
    records = [jobs.submit() for _ in range(5)]
    jobs.queue.cancel(records[2].id)
    newest = [record.id for record in reversed(records)]
    first, token = jobs.queue.page(2, None, None)
    rest, end = jobs.queue.page(10, token, None)
    assert [r.id for r in first + rest] == newest
    assert end is None
    assert [r.id for r in jobs.queue.page(10, None, State.CANCELLED)[0]] == [records[2].id]


def test_a_tenants_list_has_only_its_own_jobs(jobs):
    own, _ = jobs.submit(tenant="a"), jobs.submit(tenant="b")
    assert [record.id for record in jobs.queue.page(10, None, None, "a")[0]] == [own.id]
    assert len(jobs.queue.page(10, None, None)[0]) == 2


def test_scripts_are_loaded_again_after_redis_lost_them(jobs):
    jobs.submit()
    jobs.queue.redis.script_flush()
    assert jobs.submit().state is State.QUEUED


def test_jobs_submitted_together_are_admitted_or_rejected_one_by_one(jobs):
    earlier = jobs.new()
    jobs.submit(earlier)
    twin = {"fingerprint": "f", "images": [("d1", b"first"), ("d2", b"second")]}
    large = jobs.new(reserved=1 << 30)
    new_jobs = [jobs.new(**twin), large, jobs.new(id=earlier.id), jobs.new(**twin), earlier]
    queued, full, reused, coalesced, same = jobs.queue.submit(new_jobs)
    assert (queued.state, queued.primary) == (State.QUEUED, "")
    assert isinstance(full, AdmissionRejected)
    assert isinstance(reused, RequestIdReused)
    assert coalesced.primary == queued.id
    assert same.id == earlier.id
    assert jobs.get(large) is None
    assert jobs.usage()["jobs"] == 3
    assert jobs.usage()["image_bytes"] == 21
    assert jobs.queue.submit([]) == []


def test_jobs_finished_together_end_one_by_one(jobs):
    records = [jobs.submit() for _ in range(4)]
    claims = jobs.claim(jobs=4)
    jobs.queue.cancel(records[2].id)
    successes = [jobs.queue.store(claim, [b"body", b"header"], 4) for claim in claims[:3]]
    assert jobs.queue.finish([*successes, Completion(claims[3], JobFailure("INTERNAL", "no"))]) == [
        True,
        True,
        False,
        True,
    ]
    ended = [jobs.get(record) for record in records]
    assert [job.state for job in ended] == [State.SUCCEEDED, State.SUCCEEDED, State.CANCELLED, State.FAILED]
    assert [bytes(jobs.queue.read_result(job, 0, 4)) for job in ended[:2]] == [b"body", b"body"]
    assert jobs.usage() == {"result_bytes": 20}
    with pytest.raises(PayloadGone):
        jobs.queue.payloads.read(claims[2].token, 0, 1)
    assert jobs.queue.finish([]) == []


def test_one_server_is_elected_reconciler_until_it_resigns_or_is_lost_also_in_a_full_redis(jobs):
    assert jobs.queue.elect("s1", 60)
    assert not jobs.queue.elect("s2", 60)
    jobs.queue.elect("s2", 0)
    with full(jobs.queue.redis):
        assert jobs.queue.elect("s1", 60)
        jobs.queue.elect("s1", 0)
        assert jobs.queue.elect("s2", 0.1)
        until(lambda: jobs.queue.elect("s3", 60))
    assert not jobs.queue.elect("s1", 60)
