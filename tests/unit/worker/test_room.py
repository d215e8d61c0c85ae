"""Room for images: all that is free goes to one thread at a time, and waiting ends when there is some again."""

from __future__ import annotations

import threading

import pytest

from convlens.worker.room import Room


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
