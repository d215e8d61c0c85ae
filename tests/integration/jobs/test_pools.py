"""Pools: a job is computed by the weights it was validated for, and ends when other weights have replaced them."""

from __future__ import annotations

import contextlib
import time

import pytest
from processes import full, until

from convlens.jobs import model_registry
from convlens.jobs.pools import pool_of
from convlens.jobs.queue import keys
from convlens.jobs.queue.new_job import RequestIdReused
from convlens.jobs.queue.record import State
from convlens.v1 import model_pb2

CARDS = {digest: model_pb2.Model(name="m", digest=digest) for digest in ("old", "new")}
OLD, NEW = map(pool_of, CARDS.values())
EQUAL = {"fingerprint": "f", "images": [("d1", b"first"), ("d2", b"second")]}


@contextlib.contextmanager
def serving(jobs, digest):
    """Run the heartbeat of a worker of these weights."""
    queue = jobs.queue
    heartbeat = model_registry.RegistrationHeartbeat(
        queue.redis, f"worker-{digest}", [CARDS[digest]], queue.settings.lease
    )
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.stop()


def reconcile_until_ended(jobs, record, **options):
    """Run the reconciler until the job has ended, and return the reason."""
    until(lambda: jobs.queue.reconcile(**options) is None or jobs.get(record).state.final)
    return jobs.get(record).failure.reason


def test_a_worker_claims_only_jobs_of_its_own_weights(jobs):
    old, new = jobs.submit(pool=OLD), jobs.submit(pool=NEW)
    assert (old.model, old.pool) == ("m", OLD)
    assert [claim.record.id for claim in jobs.claim(pool=NEW, jobs=9)] == [new.id]
    assert jobs.claim(pool="m") == []
    (claim,) = jobs.claim(pool=OLD, jobs=9)
    assert claim.record == jobs.get(old)
    jobs.queue.release(claim)
    assert jobs.claim(pool=NEW) == []
    assert len(jobs.claim(pool=OLD)) == 1


def test_equal_requests_share_results_only_of_the_same_weights(jobs):
    jobs.succeed(jobs.claim_job(jobs.submit(pool=OLD, **EQUAL)), b"old")
    new = jobs.submit(pool=NEW, **EQUAL)
    assert (new.state, new.primary) == (State.QUEUED, "")
    assert jobs.submit(pool=NEW, **EQUAL).primary == new.id
    jobs.succeed(jobs.claim_job(new), b"new")
    for pool, body in ((OLD, b"old"), (NEW, b"new")):
        assert jobs.queue.read_result(jobs.submit(pool=pool, **EQUAL), 0, 3) == body


def test_the_result_of_a_deleted_job_answers_no_equal_request(jobs):
    for pool in (OLD, NEW):
        record = jobs.submit(pool=pool, **EQUAL)
        jobs.succeed(jobs.claim_job(record))
        jobs.queue.delete(record)
        assert jobs.submit(pool=pool, **EQUAL).state is State.QUEUED


def test_a_repeated_request_gets_its_job_after_a_change_of_weights(jobs):
    job = jobs.new(pool=OLD, **EQUAL)
    jobs.succeed(jobs.claim_job(jobs.submit(job)), b"old")
    again = jobs.submit(id=job.id, pool=NEW, **EQUAL)
    assert (again.state, again.pool) == (State.SUCCEEDED, OLD)
    assert jobs.queue.read_result(again, 0, 3) == b"old"


def test_jobs_of_replaced_weights_fail_and_are_queued_again_by_the_same_request(jobs):
    job = jobs.new(pool=OLD, **EQUAL)
    record, follower = jobs.submit(job), jobs.submit(pool=OLD, **EQUAL)
    assert follower.primary == record.id
    with serving(jobs, "new"):
        assert reconcile_until_ended(jobs, record) == reconcile_until_ended(jobs, follower) == "MODEL_CHANGED"
        assert jobs.get(record).state is State.FAILED
        assert jobs.usage() == {}
        with pytest.raises(RequestIdReused):
            jobs.submit(id=job.id, pool=NEW, fingerprint="another request")
        anew = jobs.submit(id=job.id, pool=NEW, **EQUAL)
        assert (anew.state, anew.pool, anew.failure) == (State.QUEUED, NEW, None)
        assert jobs.reconcile() == {}
        jobs.succeed(jobs.claim_job(anew), b"new")
        assert jobs.get(record).state is State.SUCCEEDED


def test_the_reconciler_fails_a_bounded_number_of_jobs_at_a_time(jobs):
    records = [jobs.submit(pool=OLD, tenant=tenant) for tenant in "abc" for _ in range(4)]
    with serving(jobs, "new"):
        reconcile_until_ended(jobs, records[0], limit=5)
        assert sum(jobs.get(record).state.final for record in records) == 5
        for record in records:
            assert reconcile_until_ended(jobs, record, limit=5) == "MODEL_CHANGED"
    assert jobs.usage() == {}
    assert jobs.queue.stats().queues == {}


def test_a_lost_workers_job_of_replaced_weights_fails(jobs):
    record = jobs.submit(pool=OLD)
    jobs.claim_job(record)
    with serving(jobs, "new"):
        assert reconcile_until_ended(jobs, record) == "MODEL_CHANGED"


def test_a_running_job_of_replaced_weights_can_still_succeed(jobs):
    record = jobs.submit(pool=OLD)
    claim = jobs.claim_job(record)
    with serving(jobs, "new"):
        ends = time.monotonic() + 3 * jobs.queue.settings.lease
        while time.monotonic() < ends:
            assert jobs.queue.renew([claim]) == set()
            jobs.reconcile()
            time.sleep(0.05)
        assert jobs.succeed(claim)


def test_jobs_stay_queued_while_their_worker_restarts_within_a_lease(jobs):
    record = jobs.submit(pool=OLD)
    with serving(jobs, "new"):
        for _ in range(3):
            jobs.reconcile()
            time.sleep(0.6 * jobs.queue.settings.lease)
            with serving(jobs, "old"):
                jobs.reconcile()
        assert jobs.get(record).state is State.QUEUED


@pytest.mark.parametrize("served", [None, "old"])
def test_jobs_stay_queued_while_the_model_has_no_worker_or_one_of_their_weights(jobs, served):
    record = jobs.submit(pool=OLD)
    with serving(jobs, served) if served else contextlib.nullcontext(), serving(jobs, "new"):
        jobs.reconcile()
    with serving(jobs, served) if served else contextlib.nullcontext():
        ends = time.monotonic() + 3 * jobs.queue.settings.lease
        while time.monotonic() < ends:
            jobs.reconcile()
            time.sleep(0.05)
        assert jobs.get(record).state is State.QUEUED


def test_a_change_of_weights_does_not_affect_jobs_of_another_model(jobs):
    other = jobs.submit(model="mm", pool="mm@1-1")
    record = jobs.submit(pool=OLD)
    with serving(jobs, "new"):
        assert reconcile_until_ended(jobs, record) == "MODEL_CHANGED"
    assert jobs.get(other).state is State.QUEUED


def test_jobs_of_replaced_weights_fail_in_a_full_redis(jobs):
    record = jobs.submit(pool=OLD)
    with full(jobs.queue.redis), serving(jobs, "new"):
        assert reconcile_until_ended(jobs, record) == "MODEL_CHANGED"


def test_the_queue_stats_of_a_model_include_all_of_its_weights(jobs):
    jobs.submit(pool=OLD)
    time.sleep(0.05)
    for _ in range(2):
        jobs.submit(pool=NEW)
    jobs.submit(model="n")
    queues = jobs.queue.stats().queues
    assert {model: number for model, (number, _) in queues.items()} == {"m": 3, "n": 1}
    assert queues["m"][1] >= 0.05


def test_lost_messages_are_restored_to_the_list_of_their_pool(jobs):
    jobs.submit(pool=OLD)
    jobs.queue.redis.delete(keys.messages(OLD))
    assert jobs.reconcile() == {OLD: 1}
    assert jobs.queue.redis.llen(keys.messages(OLD)) == 1
