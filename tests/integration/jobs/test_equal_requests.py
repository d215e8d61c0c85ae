"""Equal images are stored once, equal requests computed once, and what is shared goes when nobody needs it."""

from __future__ import annotations

import dataclasses

import pytest
from processes import until

from convlens.jobs.payloads.store import PayloadGone
from convlens.jobs.queue import keys
from convlens.jobs.queue.record import JobFailure, State

EQUAL = {"fingerprint": "f", "images": [("d1", b"first"), ("d2", b"second")]}


def payloads(jobs) -> int:
    """How many there are, of images and results."""
    folder = jobs.queue.settings.payload_dir
    return (
        sum(it.is_file() for it in folder.iterdir())
        if folder
        else len(list(jobs.queue.redis.scan_iter("convlens:payload:*")))
    )


def next_millisecond(jobs) -> None:
    """Returns once Redis' clock, as the scripts read it, has moved."""
    seconds, micros = jobs.queue.redis.time()
    until(lambda: jobs.queue.redis.time() >= (seconds, micros // 1000 * 1000 + 1000))


def test_equal_images_are_stored_once_while_a_job_needs_them(jobs):
    first = jobs.submit(images=[("d1", b"image"), ("d1", b"image")])
    second = jobs.submit(images=[("d2", b"other"), ("d1", b"image")])
    assert payloads(jobs) == 2
    assert jobs.load()["image_bytes"] == 10
    jobs.queue.cancel(first.id)
    jobs.queue.collect_garbage()
    assert jobs.queue.read_images([jobs.take(second)]) == [[b"other", b"image"]]
    jobs.queue.cancel(second.id)
    jobs.queue.collect_garbage()
    assert payloads(jobs) == 0
    assert jobs.load() == {}


def test_images_that_came_together_are_held_until_the_last_of_them_is_not_needed(jobs):
    several = jobs.submit(images=[("a", b"aaa"), ("b", b"bb"), ("c", b"c")])
    one = jobs.submit(images=[("b", b"bb"), ("d", b"dd")])
    jobs.succeed(jobs.take(several))
    jobs.queue.collect_garbage()
    assert jobs.load()["image_bytes"] == 8
    assert jobs.queue.read_images([jobs.take(one)]) == [[b"bb", b"dd"]]
    jobs.queue.cancel(one.id)
    assert "image_bytes" not in jobs.load()


def test_an_image_whose_payload_would_be_gone_too_soon_is_stored_again(jobs):
    """A payload lasts as long as the job it came with may take, and the result's time longer."""
    short = jobs.submit(**EQUAL, timeout=10.0)
    long = jobs.submit(images=[*EQUAL["images"], ("d3", b"third")], timeout=1000.0)
    assert payloads(jobs) == 2
    assert jobs.load()["image_bytes"] == 27
    third = jobs.submit(images=EQUAL["images"], timeout=900.0)
    assert payloads(jobs) == 2
    jobs.queue.cancel(short.id)
    jobs.queue.collect_garbage()
    assert jobs.load()["image_bytes"] == 16
    jobs.queue.cancel(long.id)
    assert jobs.queue.read_images([jobs.take(third)]) == [[b"first", b"second"]]
    jobs.queue.cancel(third.id)
    jobs.queue.collect_garbage()
    assert payloads(jobs) == 0
    assert jobs.load() == {}
    assert not jobs.queue.redis.exists(keys.IMAGES)


def test_an_image_that_goes_while_it_is_asked_for_again_is_stored_again(jobs, monkeypatch):
    first = jobs.submit(**EQUAL)
    put = jobs.queue.payloads.put

    def late(*args, **options):
        monkeypatch.undo()
        jobs.queue.cancel(first.id)
        jobs.queue.collect_garbage()
        return put(*args, **options)

    monkeypatch.setattr(jobs.queue.payloads, "put", late)
    second = jobs.submit(images=[*EQUAL["images"], ("d3", b"third")])
    assert jobs.queue.read_images([jobs.take(second)]) == [[b"first", b"second", b"third"]]
    assert jobs.load()["image_bytes"] == 16
    assert payloads(jobs) == 1


def test_an_equal_request_is_answered_by_the_result_that_is_there(jobs):
    first = jobs.submit(**EQUAL)
    jobs.succeed(jobs.take(first), b"result")
    second = jobs.submit(**EQUAL)
    assert second.id != first.id
    assert (second.state, second.cached) == (State.SUCCEEDED, True)
    assert jobs.queue.read_result(second, 0, 6) == b"result"
    assert jobs.load() == {"result_bytes": 12}
    jobs.queue.delete(first)
    jobs.queue.collect_garbage()
    assert jobs.queue.read_result(second, 0, 6) == b"result"
    jobs.queue.delete(second)
    jobs.queue.collect_garbage()
    assert payloads(jobs) == 0
    assert jobs.load() == {}


def test_a_fresh_request_is_computed_all_the_same(jobs):
    jobs.succeed(jobs.take(jobs.submit(**EQUAL)))
    fresh = jobs.submit(**EQUAL, fresh=True)
    assert fresh.state is State.QUEUED
    jobs.succeed(jobs.take(fresh), b"newer")
    assert jobs.queue.read_result(jobs.submit(**EQUAL), 0, 5) == b"newer"


def test_a_request_like_one_under_way_waits_for_it(jobs):
    first = jobs.submit(**EQUAL)
    others = [jobs.submit(**EQUAL) for _ in range(2)]
    claim = jobs.take(first)
    others.append(jobs.submit(**EQUAL))
    assert jobs.claim() == []
    jobs.succeed(claim, b"result")
    for other in map(jobs.get, others):
        assert (other.state, other.cached) == (State.SUCCEEDED, True)
        assert jobs.queue.read_result(other, 0, 6) == b"result"
    assert jobs.load() == {"result_bytes": 12}


def test_who_follows_tells_the_state_and_the_progress_of_whom_it_follows(jobs):
    first, second = (jobs.submit(**EQUAL) for _ in range(2))
    assert jobs.get(second).state is State.QUEUED
    claim = jobs.take(first)
    third = jobs.submit(**EQUAL)
    jobs.queue.progress(claim, 0.25)
    fourth = jobs.submit(**EQUAL)
    told = [(it.state, it.progress, it.started) for it in map(jobs.get, (first, second, third, fourth))]
    assert told == [(State.RUNNING, 0.25, claim.record.started)] * 4
    jobs.queue.release(claim)
    assert [jobs.get(it).state for it in (first, second, third, fourth)] == [State.QUEUED] * 4
    jobs.take(first)
    jobs.queue.cancel(first.id)
    assert [jobs.get(it).state for it in (second, third, fourth)] == [State.QUEUED] * 3
    claim = jobs.take(second)
    jobs.queue.progress(claim, 0.5)
    assert [(it.state, it.progress) for it in map(jobs.get, (second, third))] == [(State.RUNNING, 0.5)] * 2
    jobs.queue.cancel(third.id)
    jobs.queue.progress(claim, 0.75)
    assert (jobs.get(third).state, jobs.get(third).progress) == (State.CANCELLED, 0.0)  # it has none of its own
    jobs.succeed(claim)
    assert jobs.get(fourth).state is State.SUCCEEDED
    assert jobs.load() == {"result_bytes": 10}


def test_a_request_that_followed_and_comes_again_as_its_own_is_told_nothing(jobs):
    first = jobs.submit(**EQUAL)
    left = jobs.new(**EQUAL, keep=False)
    jobs.leave(jobs.submit(left))
    jobs.submit(dataclasses.replace(left, fresh=True))
    jobs.take(first)
    assert jobs.get(left).state is State.QUEUED
    assert jobs.take(left).record.id == left.id


def test_where_a_worker_is_lost_its_followers_wait_again(jobs):
    first, second = (jobs.submit(**EQUAL) for _ in range(2))
    jobs.take(first)
    until(lambda: (jobs.reconcile(), jobs.get(second).state is State.QUEUED)[1])
    assert jobs.get(first).state is State.QUEUED


def test_where_the_first_one_is_cancelled_the_next_takes_its_place(jobs):
    first, second, third = (jobs.submit(**EQUAL) for _ in range(3))
    jobs.queue.cancel(first.id)
    claim = jobs.take(second)
    assert jobs.queue.read_images([claim]) == [[b"first", b"second"]]
    jobs.succeed(claim)
    assert jobs.get(third).state is State.SUCCEEDED
    assert jobs.get(first).state is State.CANCELLED


def test_a_failure_is_everybodys_and_is_not_remembered(jobs):
    first, second = (jobs.submit(**EQUAL) for _ in range(2))
    jobs.fail(jobs.take(first), JobFailure("IMAGE_UNREADABLE", "no image", "spec.images[0]"))
    assert jobs.get(second).failure == jobs.get(first).failure
    assert jobs.submit(**EQUAL).state is State.QUEUED


def test_a_high_request_does_not_wait_behind_a_low_one(jobs):
    jobs.submit(**EQUAL, priority=3)
    high = jobs.submit(**EQUAL, priority=1)
    assert jobs.take(high).record.id == high.id


def test_an_answered_callers_result_goes_when_its_room_is_needed_and_a_kept_one_stays(jobs):
    passing, kept = jobs.submit(keep=False), jobs.submit()
    for record in (passing, kept):
        jobs.succeed(jobs.take(record), b"r" * 400)
    jobs.leave(passing)
    assert jobs.load() == {"result_bytes": 406, "cached_bytes": 406}
    jobs.submit(bounds={"result_bytes": 1000}, reserved=500)
    assert jobs.load()["result_bytes"] == 906
    assert "cached_bytes" not in jobs.load()
    assert jobs.queue.read_result(jobs.get(kept), 0, 1) == b"r"
    jobs.queue.collect_garbage()
    assert payloads(jobs) == 2  # the kept one's, and the images of the job that waits


def test_no_more_than_a_share_of_the_results_is_cached_the_latest(jobs):
    """A result of the tests has 400 bytes and a header of 6: an eighth of 4,000 has room for one and begins another."""
    records = [jobs.submit(keep=False) for _ in range(4)]
    for record in records:
        jobs.succeed(jobs.take(record), b"r" * 400)
        jobs.leave(record)
        next_millisecond(jobs)
    assert jobs.load()["cached_bytes"] == 4 * 406
    jobs.submit(bounds={"result_bytes": 4000}, reserved=1)
    assert jobs.load()["cached_bytes"] == 406
    jobs.queue.collect_garbage()
    with pytest.raises(PayloadGone):
        jobs.queue.read_result(jobs.get(records[2]), 0, 1)
    assert jobs.queue.read_result(jobs.get(records[3]), 0, 1) == b"r"


def test_cached_results_are_dropped_on_demand_the_oldest_first(jobs):
    kept = jobs.submit()
    jobs.succeed(jobs.take(kept))
    cached = []
    for _ in range(3):
        record = jobs.submit(keep=False)
        jobs.succeed(jobs.take(record))
        jobs.leave(record)
        cached.append(jobs.get(record))
        next_millisecond(jobs)
    jobs.queue.collect_garbage()
    size = len(b"bodyheader")
    assert jobs.load()["cached_bytes"] == 3 * size
    assert jobs.queue.evict_cached(size + 1) == [cached[0].result, cached[1].result]
    assert jobs.load()["cached_bytes"] == size
    assert jobs.queue.evict_cached(1000) == [cached[2].result]
    assert jobs.queue.evict_cached(1000) == []
    assert jobs.load() == {"result_bytes": size}
    assert jobs.queue.read_result(jobs.get(kept), 0, 4) == b"body"
