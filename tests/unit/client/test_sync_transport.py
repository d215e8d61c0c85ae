"""Groups of calls that end together, and waits that Ctrl-C ends whichever thread the system tells of it."""

from __future__ import annotations

import pickle
import signal
import threading
import time
from concurrent.futures import Future

import pytest

from convlens.client import Cancelled
from convlens.client.connection import Connection
from convlens.client.errors import ClientClosed
from convlens.client.sync_transport import CallGroup, wait_for

CONNECTION = Connection("localhost:1", None, None)


class Call:
    """What a group knows of a call."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


def test_a_group_ends_its_calls_and_those_of_the_groups_below():
    outer, calls = CallGroup(CONNECTION), [Call(), Call()]
    with outer.subgroup() as inner, outer.running(lambda: calls[0]), inner.running(lambda: calls[1]):
        outer.cancel()
        assert all(call.cancelled.is_set() for call in calls)
        assert inner.is_cancelled


def test_a_group_that_ends_leaves_the_one_above_alone():
    outer = CallGroup(CONNECTION)
    with outer.subgroup() as inner:
        pass
    assert inner.is_cancelled
    assert not outer.is_cancelled
    assert not outer._members


def test_nothing_begins_in_a_group_that_was_cancelled():
    group = CallGroup(CONNECTION)
    group.cancel()
    with pytest.raises(Cancelled) as caught, group.running(lambda: pytest.fail("it began")):
        pass
    assert caught.value.reason == "CLIENT_CLOSED"
    with pytest.raises(Cancelled):
        group.pause(60)


def test_a_call_ends_with_its_with():
    group, call = CallGroup(CONNECTION), Call()
    with pytest.raises(ZeroDivisionError), group.running(lambda: call):
        raise ZeroDivisionError
    assert call.cancelled.is_set()
    assert not group._members


def test_a_pause_ends_with_its_group():
    group = CallGroup(CONNECTION)
    threading.Timer(0.1, group.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        group.pause(60)
    assert time.monotonic() - began < 10


@pytest.fixture
def interruptible():
    """SIGINT is KeyboardInterrupt, also where the tests are run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_wait_is_ended_by_a_signal_that_another_thread__of(interruptible):
    future = Future()

    def interrupt():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        future.exception(20)  # the thread goes on, as one of a pool does

    timer = threading.Timer(0.3, interrupt)
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        wait_for(future)
    assert time.monotonic() - began < 5
    future.set_result(None)
    timer.join()


def test_an_error_is_pickled():
    error = pickle.loads(pickle.dumps(ClientClosed()))
    assert isinstance(error, ClientClosed)
    assert error.reason == "CLIENT_CLOSED"
