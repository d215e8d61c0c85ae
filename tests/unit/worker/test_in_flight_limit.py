"""The in-flight limit: one thread at a time reserves all that is free, and waits while nothing is."""

from __future__ import annotations

import threading

import pytest

from convlens.worker.pipeline.limits import InFlightLimit


def test_unused_images_are_free_again_and_used_ones_are_not():
    limit = InFlightLimit(16)
    with limit.reserve() as reservation:
        assert reservation.images == 16
        reservation.used = 10
    with limit.reserve() as reservation:
        assert reservation.images == 6


def test_a_thread_waits_while_the_limit_is_reached():
    limit = InFlightLimit(8)
    with limit.reserve() as reservation:
        reservation.used = 20  # one job larger than the limit
    entered = threading.Event()

    def enter():
        with limit.reserve() as reservation:
            assert reservation.images == 4
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    limit.release(12)
    assert not entered.wait(0.05)
    limit.release(4)
    assert entered.wait(10)
    thread.join()


def test_a_failure_releases_the_whole_reservation():
    limit = InFlightLimit(8)
    with pytest.raises(ZeroDivisionError), limit.reserve():
        _ = 1 / 0
    with limit.reserve() as reservation:
        assert reservation.images == 8


def test_one_thread_may_claim_beyond_the_limit():
    limit = InFlightLimit(8)
    with limit.reserve() as reservation:
        reservation.used = 8
    limit.overcommit()
    with limit.reserve() as beyond:
        assert beyond.images == 1
        beyond.used = 1
    limit.release(9)
    with limit.reserve() as reservation:
        assert reservation.images == 8
