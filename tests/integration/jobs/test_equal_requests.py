"""Equal images are stored once, equal requests are computed once, and both are freed after their last use."""

from __future__ import annotations

import dataclasses

import pytest
from processes import until

from convlens.jobs.payloads.store import PayloadGone
from convlens.jobs.queue import keys
from convlens.jobs.queue.record import JobFailure, State

EQUAL = {"fingerprint": "f", "images": [("d1", b"first"), ("d2", b"second")]}


def payloads(jobs) -> int:
    """The number of payloads, of images and results."""
    if folder := jobs.queue.settings.payload_dir:
        return sum(path.is_file() for path in folder.iterdir())
    return sum(1 for _ in jobs.queue.redis.scan_iter("convlens:payload:*"))


def next_millisecond(jobs) -> None:
    """Wait until Redis' clock, as the scripts read it, has advanced."""
    seconds, micros = jobs.queue.redis.time()
    until(lambda: jobs.queue.redis.time() >= (seconds, micros // 1000 * 1000 + 1000))


def test_equal_images_are_stored_once_while_a_job_needs_them(jobs):
    first = jobs.submit(images=[("d1", b"image"), ("d1", b"image")])
    second = jobs.submit(images=[("d2", b"other"), ("d1", b"image")])
    assert payloads(jobs) == 2
    assert jobs.usage()["image_bytes"] == 10
    jobs.queue.cancel(first.id)
    jobs.queue.collect_garbage()
    assert jobs.queue.read_images([jobs.claim_job(second)]) == [[b"other", b"image"]]
    jobs.queue.cancel(second.id)
    jobs.queue.collect_garbage()
    assert payloads(jobs) == 0
    assert jobs.usage() == {}


def test_images_stored_together_are_kept_until_the_last_of_them_is_unused(jobs):
    several = jobs.submit(images=[("a", b"aaa"), ("b", b"bb"), ("c", b"c")])
    one = jobs.submit(images=[("b", b"bb"), ("d", b"dd")])
    jobs.succeed(jobs.claim_job(several))
    jobs.queue.collect_garbage()
    assert jobs.usage()["image_bytes"] == 8
    assert jobs.queue.read_images([jobs.claim_job(one)]) == [[b"bb", b"dd"]]
    jobs.queue.cancel(one.id)
    assert "image_bytes" not in jobs.usage()


def test_an_image_whose_payload_expires_too_soon_is_stored_again(jobs):
    """A payload expires after the timeout of the job that stored it and the result TTL."""
    short = jobs.submit(**EQUAL, timeout=10.0)
    long = jobs.submit(images=[*EQUAL["images"], ("d3", b"third")], timeout=1000.0)
    assert payloads(jobs) == 2
    assert jobs.usage()["image_bytes"] == 27
    third = jobs.submit(images=EQUAL["images"], timeout=900.0)
    assert payloads(jobs) == 2
    jobs.queue.cancel(short.id)
    jobs.queue.collect_garbage()
    assert jobs.usage()["image_bytes"] == 16
    jobs.queue.cancel(long.id)
    assert jobs.queue.read_images([jobs.claim_job(third)]) == [[b"first", b"second"]]
    jobs.queue.cancel(third.id)
    jobs.queue.collect_garbage()
    assert payloads(jobs) == 0
    assert jobs.usage() == {}
    assert not jobs.queue.redis.exists(keys.IMAGES)


def test_an_image_freed_during_the_submission_of_another_job_is_stored_again(jobs, monkeypatch):
    first = jobs.submit(**EQUAL)
    put = jobs.queue.payloads.put

    def free_and_put(*args, **options):
        monkeypatch.undo()
        jobs.queue.cancel(first.id)
        jobs.queue.collect_garbage()
        return put(*args, **options)

    monkeypatch.setattr(jobs.queue.payloads, "put", free_and_put)
    second = jobs.submit(images=[*EQUAL["images"], ("d3", b"third")])
    assert jobs.queue.read_images([jobs.claim_job(second)]) == [[b"first", b"second", b"third"]]
    assert jobs.usage()["image_bytes"] == 16
    assert payloads(jobs) == 1


def test_an_equal_request_is_answered_by_the_stored_result(jobs):
    first = jobs.submit(**EQUAL)
    jobs.succeed(jobs.claim_job(first), b"result")
    second = jobs.submit(**EQUAL)
    assert second.id != first.id
    assert (second.state, second.cached) == (State.SUCCEEDED, True)
    assert jobs.queue.read_result(second, 0, 6) == b"result"
    assert jobs.usage() == {"result_bytes": 12}
    jobs.queue.delete(first)
    jobs.queue.collect_garbage()
    assert jobs.queue.read_result(second, 0, 6) == b"result"
    jobs.queue.delete(second)
    jobs.queue.collect_garbage()
    assert payloads(jobs) == 0
    assert jobs.usage() == {}


def test_a_fresh_request_is_computed_in_spite_of_a_stored_result(jobs):
    jobs.succeed(jobs.claim_job(jobs.submit(**EQUAL)))
    fresh = jobs.submit(**EQUAL, fresh=True)
    assert fresh.state is State.QUEUED
    jobs.succeed(jobs.claim_job(fresh), b"newer")
    assert jobs.queue.read_result(jobs.submit(**EQUAL), 0, 5) == b"newer"


def test_a_request_equal_to_a_live_one_waits_for_its_result(jobs):
    first = jobs.submit(**EQUAL)
    others = [jobs.submit(**EQUAL) for _ in range(2)]
    claim = jobs.claim_job(first)
    others.append(jobs.submit(**EQUAL))
    assert jobs.claim() == []
    jobs.succeed(claim, b"result")
    for other in map(jobs.get, others):
        assert (other.state, other.cached) == (State.SUCCEEDED, True)
        assert jobs.queue.read_result(other, 0, 6) == b"result"
    assert jobs.usage() == {"result_bytes": 12}


def test_a_coalesced_job_shows_the_state_and_progress_of_its_primary(jobs):
    first, second = (jobs.submit(**EQUAL) for _ in range(2))
    assert jobs.get(second).state is State.QUEUED
    claim = jobs.claim_job(first)
    third = jobs.submit(**EQUAL)
    jobs.queue.progress(claim, 0.25)
    fourth = jobs.submit(**EQUAL)
    records = map(jobs.get, (first, second, third, fourth))
    expected = (State.RUNNING, 0.25, claim.record.started)
    assert [(record.state, record.progress, record.started) for record in records] == [expected] * 4
    jobs.queue.release(claim)
    assert [jobs.get(record).state for record in (first, second, third, fourth)] == [State.QUEUED] * 4
    jobs.claim_job(first)
    jobs.queue.cancel(first.id)
    assert [jobs.get(record).state for record in (second, third, fourth)] == [State.QUEUED] * 3
    claim = jobs.claim_job(second)
    jobs.queue.progress(claim, 0.5)
    records = map(jobs.get, (second, third))
    assert [(record.state, record.progress) for record in records] == [(State.RUNNING, 0.5)] * 2
    jobs.queue.cancel(third.id)
    jobs.queue.progress(claim, 0.75)
    assert (jobs.get(third).state, jobs.get(third).progress) == (State.CANCELLED, 0.0)  # no progress of its own
    jobs.succeed(claim)
    assert jobs.get(fourth).state is State.SUCCEEDED
    assert jobs.usage() == {"result_bytes": 10}


def test_a_coalesced_job_submitted_again_as_fresh_is_independent(jobs):
    first = jobs.submit(**EQUAL)
    abandoned = jobs.new(**EQUAL, keep=False)
    jobs.leave(jobs.submit(abandoned))
    jobs.submit(dataclasses.replace(abandoned, fresh=True))
    jobs.claim_job(first)
    assert jobs.get(abandoned).state is State.QUEUED
    assert jobs.claim_job(abandoned).record.id == abandoned.id


def test_coalesced_jobs_are_queued_again_when_the_worker_is_lost(jobs):
    first, second = (jobs.submit(**EQUAL) for _ in range(2))
    jobs.claim_job(first)
    until(lambda: (jobs.reconcile(), jobs.get(second).state is State.QUEUED)[1])
    assert jobs.get(first).state is State.QUEUED


def test_the_next_equal_job_is_promoted_when_the_primary_is_cancelled(jobs):
    first, second, third = (jobs.submit(**EQUAL) for _ in range(3))
    jobs.queue.cancel(first.id)
    claim = jobs.claim_job(second)
    assert jobs.queue.read_images([claim]) == [[b"first", b"second"]]
    jobs.succeed(claim)
    assert jobs.get(third).state is State.SUCCEEDED
    assert jobs.get(first).state is State.CANCELLED


def test_a_failure_ends_all_equal_jobs_and_is_not_cached(jobs):
    first, second = (jobs.submit(**EQUAL) for _ in range(2))
    jobs.fail(jobs.claim_job(first), JobFailure("IMAGE_UNREADABLE", "no image", "spec.images[0]"))
    assert jobs.get(second).failure == jobs.get(first).failure
    assert jobs.submit(**EQUAL).state is State.QUEUED


def test_a_request_of_high_priority_does_not_wait_for_an_equal_one_of_low_priority(jobs):
    jobs.submit(**EQUAL, priority=3)
    high = jobs.submit(**EQUAL, priority=1)
    assert jobs.claim_job(high).record.id == high.id


def test_cached_results_are_dropped_when_space_is_needed_and_kept_ones_are_not(jobs):
    cached, kept = jobs.submit(keep=False), jobs.submit()
    for record in (cached, kept):
        jobs.succeed(jobs.claim_job(record), b"r" * 400)
    jobs.leave(cached)
    assert jobs.usage() == {"result_bytes": 406, "cached_bytes": 406}
    jobs.submit(bounds={"result_bytes": 1000}, reserved=500)
    assert jobs.usage()["result_bytes"] == 906
    assert "cached_bytes" not in jobs.usage()
    assert jobs.queue.read_result(jobs.get(kept), 0, 1) == b"r"
    jobs.queue.collect_garbage()
    assert payloads(jobs) == 2  # the kept result, and the images of the queued job


def test_only_the_latest_results_stay_cached_within_their_share(jobs):
    """A result has 400 bytes and a header of 6, so an eighth of 4,000 bytes fits one of them."""
    records = [jobs.submit(keep=False) for _ in range(4)]
    for record in records:
        jobs.succeed(jobs.claim_job(record), b"r" * 400)
        jobs.leave(record)
        next_millisecond(jobs)
    assert jobs.usage()["cached_bytes"] == 4 * 406
    jobs.submit(bounds={"result_bytes": 4000}, reserved=1)
    assert jobs.usage()["cached_bytes"] == 406
    jobs.queue.collect_garbage()
    with pytest.raises(PayloadGone):
        jobs.queue.read_result(jobs.get(records[2]), 0, 1)
    assert jobs.queue.read_result(jobs.get(records[3]), 0, 1) == b"r"


def test_cached_results_are_evicted_on_demand_oldest_first(jobs):
    kept = jobs.submit()
    jobs.succeed(jobs.claim_job(kept))
    cached = []
    for _ in range(3):
        record = jobs.submit(keep=False)
        jobs.succeed(jobs.claim_job(record))
        jobs.leave(record)
        cached.append(jobs.get(record))
        next_millisecond(jobs)
    jobs.queue.collect_garbage()
    size = len(b"bodyheader")
    assert jobs.usage()["cached_bytes"] == 3 * size
    assert jobs.queue.evict_cached(size + 1) == [cached[0].result, cached[1].result]
    assert jobs.usage()["cached_bytes"] == size
    assert jobs.queue.evict_cached(1000) == [cached[2].result]
    assert jobs.queue.evict_cached(1000) == []
    assert jobs.usage() == {"result_bytes": size}
    assert jobs.queue.read_result(jobs.get(kept), 0, 4) == b"body"
