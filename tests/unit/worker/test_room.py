"""Room for images: all that is free goes to one thread at a time, and waiting ends when there is some again."""

from __future__ import annotations

import threading

import pytest

from convlens.worker.pipeline.in_flight_limit import Room


def test_what_is_not_used_is_free_again_and_what_is_used_is_not():
    room = Room(16)
    with room.taken() as taken:
        assert taken.free == 16
        taken.used = 10
    with room.taken() as taken:
        assert taken.free == 6


def test_a_full_room_is_waited_for():
    room = Room(8)
    with room.taken() as taken:
        taken.used = 20  # one job larger than the room
    entered = threading.Event()

    def enter():
        with room.taken() as later:
            assert later.free == 4
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    room.release(12)
    assert not entered.wait(0.05)
    room.release(4)
    assert entered.wait(10)
    thread.join()


def test_a_failure_gives_all_back():
    room = Room(8)
    with pytest.raises(ZeroDivisionError), room.taken():
        _ = 1 / 0
    with room.taken() as taken:
        assert taken.free == 8


def test_an_urgent_job_is_taken_beyond_a_full_room_by_one_thread():
    room = Room(8)
    with room.taken() as taken:
        taken.used = 8
    room.urge()
    with room.taken() as beyond:
        assert beyond.free == 1
        beyond.used = 1
    room.release(9)
    with room.taken() as taken:
        assert taken.free == 8


def test_who_has_other_work_is_called_from_a_full_room():
    room = Room(8)
    with room.taken() as taken:
        taken.used = 8
    called = threading.Event()
    found = []

    def wait():
        with room.taken(called.is_set) as none:
            found.append(none.free)

    waiting = threading.Thread(target=wait)
    waiting.start()
    called.set()
    room.release(0)
    waiting.join(10)
    assert found == [0]
