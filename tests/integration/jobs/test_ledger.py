"""The ledger's promises, on a real Valkey, over both payload stores."""

from __future__ import annotations

import time

import pytest
from processes import until

from convlens.jobs.ledger import Full, JobLive, RequestIdReused
from convlens.jobs.payloads import PayloadGone
from convlens.jobs.record import JobFailure, State


def submit(ledger, job):
    return ledger.submit(job, 100)


def test_a_job_runs_through_its_life_and_its_result_is_what_was_written(ledger, new_job):
    job = new_job()
    record, created = submit(ledger, job)
    assert created
    assert record.state is State.QUEUED
    assert ledger.position(record) == 0
    (claim,) = ledger.claim([job.id], "w1")
    assert claim.record.state is State.RUNNING
    assert claim.record.attempts == 1
    assert ledger.read_request(claim) == b"imagebytes"
    body = [b"a" * 700_000, memoryview(b"b" * 900_000), b"c" * 1_500_000]
    assert ledger.succeed(claim, body, lambda: b"header")
    record = ledger.get(job.id)
    assert record.state is State.SUCCEEDED
    assert record.result_bytes == 3_100_000
    assert ledger.read_header(record) == b"header"
    assert ledger.read_result(record, 0, 3_100_000) == b"".join(map(bytes, body))
    assert ledger.read_result(record, 699_999, 3) == b"abb"
    assert ledger.read_result(record, 1_048_570, 20) == b"b" * 20


def test_only_one_worker_gets_a_job_however_often_its_message_comes(ledger, new_job):
    job = new_job()
    submit(ledger, job)
    assert len(ledger.claim([job.id], "w1")) == 1
    assert ledger.claim([job.id], "w2") == []


def test_a_silent_workers_job_goes_to_another_and_the_late_answer_counts_for_nothing(ledger, new_job):
    job = new_job()
    submit(ledger, job)
    (late,) = ledger.claim([job.id], "w1")
    until(lambda: [r.id for r in ledger.reconcile()] == [job.id])
    (second,) = ledger.claim([job.id], "w2")
    assert second.record.attempts == 2
    assert ledger.succeed(late, [b"wrong"], lambda: b"h") is False
    assert ledger.fail(late, JobFailure("INTERNAL", "late")) is False
    assert ledger.renew([late, second]) == {job.id}
    assert ledger.succeed(second, [b"right"], lambda: b"h")
    assert ledger.read_result(ledger.get(job.id), 0, 5) == b"right"


def test_renewed_leases_are_not_taken_away(ledger, new_job):
    job = new_job()
    submit(ledger, job)
    (claim,) = ledger.claim([job.id], "w1")
    end = time.monotonic() + 0.9
    while time.monotonic() < end:
        assert ledger.renew([claim]) == set()
        assert ledger.reconcile() == []
        time.sleep(0.05)
    assert ledger.get(job.id).state is State.RUNNING


def test_a_poison_job_ends_failed_with_the_reason(ledger, new_job):
    job = new_job()
    submit(ledger, job)
    for worker in ("w1", "w2"):
        until(lambda worker=worker: ledger.claim([job.id], worker))
        until(lambda: ledger.reconcile() or ledger.get(job.id).state.final)
    record = ledger.get(job.id)
    assert record.state is State.FAILED
    assert record.failure.reason == "ATTEMPTS_EXHAUSTED"
    assert "w2" in record.failure.message


def test_words_are_safe_to_repeat(ledger, new_job):
    job = new_job()
    submit(ledger, job)
    (claim,) = ledger.claim([job.id], "w1")
    assert ledger.succeed(claim, [b"x"], lambda: b"h")
    assert ledger.succeed(claim, [b"x"], lambda: b"h")
    assert ledger.fail(claim, JobFailure("INTERNAL", "no")) is False
    assert ledger.get(job.id).state is State.SUCCEEDED


def test_a_released_job_is_queued_again_in_its_place_and_the_attempt_is_not_counted(ledger, new_job):
    first, second = new_job(), new_job()
    submit(ledger, first)
    submit(ledger, second)
    (claim,) = ledger.claim([first.id], "w1")
    assert ledger.position(ledger.get(second.id)) == 0
    assert ledger.release(claim)
    record = ledger.get(first.id)
    assert (record.state, record.attempts) == (State.QUEUED, 0)
    assert ledger.position(record) == 0
    assert ledger.position(ledger.get(second.id)) == 1


def test_a_lost_message_is_published_again_but_not_one_that_waits_in_its_queue(ledger, new_job):
    lost = new_job()
    submit(ledger, lost)
    assert until(ledger.reconcile)[0].id == lost.id
    waiting = new_job(queue="convlens.m.high")
    submit(ledger, waiting)
    ledger.redis.rpush("convlens.m.high", "a message")
    time.sleep(0.3)
    assert waiting.id not in [record.id for record in ledger.reconcile()]


def test_deadlines_end_queued_and_running_jobs(ledger, new_job):
    queued, running = new_job(timeout=0.2), new_job(timeout=0.2)
    submit(ledger, queued)
    submit(ledger, running)
    (claim,) = ledger.claim([running.id], "w1")
    until(lambda: ledger.reconcile() == [] and ledger.get(running.id).state is State.EXPIRED)
    assert ledger.get(queued.id).state is State.EXPIRED
    assert "running" in ledger.get(running.id).failure.message
    assert "queued" in ledger.get(queued.id).failure.message
    assert ledger.succeed(claim, [b"x"], lambda: b"h") is False


def test_cancel_ends_live_jobs_and_leaves_ended_ones(ledger, new_job):
    queued, running, done = new_job(), new_job(), new_job()
    for job in (queued, running, done):
        submit(ledger, job)
    (claim,) = ledger.claim([running.id], "w1")
    (ended,) = ledger.claim([done.id], "w1")
    ledger.succeed(ended, [b"x"], lambda: b"h")
    assert ledger.cancel(queued.id).state is State.CANCELLED
    assert ledger.cancel(running.id).state is State.CANCELLED
    assert ledger.cancel(done.id).state is State.SUCCEEDED
    assert ledger.cancel("0" * 32) is None
    assert ledger.renew([claim]) == {running.id}
    assert ledger.claim([queued.id], "w1") == []


def test_the_last_waiter_to_leave_cancels_a_job_that_nobody_keeps(ledger, new_job):
    job = new_job(keep=False)
    submit(ledger, job)
    assert ledger.join(job.id)
    ledger.leave(job.id)
    assert ledger.get(job.id).state is State.QUEUED
    ledger.leave(job.id)
    assert ledger.get(job.id).failure.reason == "ABANDONED"
    record, created = submit(ledger, job)
    assert created
    assert record.state is State.QUEUED
    kept = new_job()
    submit(ledger, kept)
    ledger.join(kept.id)
    ledger.leave(kept.id)
    assert ledger.get(kept.id).state is State.QUEUED


def test_a_repeated_request_finds_its_job_and_a_different_one_is_refused(ledger, new_job):
    job = new_job()
    submit(ledger, job)
    record, created = submit(ledger, job)
    assert not created
    assert record.id == job.id
    with pytest.raises(RequestIdReused):
        submit(ledger, new_job(id=job.id, fingerprint="other"))
    (claim,) = ledger.claim([job.id], "w1")
    assert ledger.read_request(claim) == b"imagebytes"


def test_more_live_jobs_than_admitted_are_refused_until_one_ends(ledger, new_job):
    first = new_job()
    ledger.submit(first, 1)
    with pytest.raises(Full):
        ledger.submit(new_job(), 1)
    ledger.cancel(first.id)
    assert ledger.submit(new_job(), 1)[1]


def test_an_expired_result_is_gone_but_its_id_is_remembered(ledger, new_job):
    job = new_job()
    submit(ledger, job)
    (claim,) = ledger.claim([job.id], "w1")
    ledger.succeed(claim, [b"x"], lambda: b"h")

    def gone():
        ledger.collect_garbage()
        try:
            ledger.read_result(ledger.get(job.id), 0, 1)
        except PayloadGone:
            return True
        return False

    until(gone)
    record = ledger.get(job.id)
    assert record.state is State.SUCCEEDED
    assert record.expires < time.time()


def test_deleted_jobs_are_unknown_and_their_payloads_go(ledger, new_job):
    job = new_job()
    submit(ledger, job)
    with pytest.raises(JobLive):
        ledger.delete(job.id)
    (claim,) = ledger.claim([job.id], "w1")
    ledger.succeed(claim, [b"x"], lambda: b"h")
    record = ledger.get(job.id)
    ledger.delete(job.id)
    assert ledger.get(job.id) is None
    ledger.collect_garbage()
    with pytest.raises(PayloadGone):
        ledger.read_result(record, 0, 1)
    with pytest.raises(PayloadGone):
        ledger.read_request(claim)


def test_jobs_are_listed_newest_first_in_pages(ledger, new_job):
    jobs = [new_job() for _ in range(5)]
    for job in jobs:
        submit(ledger, job)
    ledger.cancel(jobs[2].id)
    newest = [job.id for job in reversed(jobs)]
    first, token = ledger.page(2, None, None)
    rest, end = ledger.page(10, token, None)
    assert [r.id for r in first + rest] == newest
    assert end is None
    assert [r.id for r in ledger.page(10, None, State.CANCELLED)[0]] == [jobs[2].id]


def test_scripts_survive_a_redis_that_forgot_them(ledger, new_job):
    submit(ledger, new_job())
    ledger.redis.script_flush()
    assert submit(ledger, new_job())[1]
