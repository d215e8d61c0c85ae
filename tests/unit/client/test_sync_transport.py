"""Groups of calls are cancelled together, and Ctrl-C ends a wait whichever thread receives the signal."""

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
    """A call as a group uses it."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


def test_cancelling_a_group_cancels_its_calls_and_those_of_its_subgroups():
    outer, calls = CallGroup(CONNECTION), [Call(), Call()]
    with outer.subgroup() as inner, outer.running(lambda: calls[0]), inner.running(lambda: calls[1]):
        outer.cancel()
        assert all(call.cancelled.is_set() for call in calls)
        assert inner.is_cancelled


def test_the_end_of_a_subgroup_does_not_cancel_its_parent():
    outer = CallGroup(CONNECTION)
    with outer.subgroup() as inner:
        pass
    assert inner.is_cancelled
    assert not outer.is_cancelled
    assert not outer._members


def test_no_call_starts_in_a_cancelled_group():
    group = CallGroup(CONNECTION)
    group.cancel()
    with pytest.raises(Cancelled) as caught, group.running(lambda: pytest.fail("the call started")):
        pass
    assert caught.value.reason == "CLIENT_CLOSED"
    with pytest.raises(Cancelled):
        group.pause(60)


def test_a_call_is_cancelled_at_the_end_of_its_with_block():
    group, call = CallGroup(CONNECTION), Call()
    with pytest.raises(ZeroDivisionError), group.running(lambda: call):
        raise ZeroDivisionError
    assert call.cancelled.is_set()
    assert not group._members


def test_a_pause_ends_when_its_group_is_cancelled():
    group = CallGroup(CONNECTION)
    threading.Timer(0.1, group.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        group.pause(60)
    assert time.monotonic() - began < 10


@pytest.fixture
def interruptible():
    """Make SIGINT raise KeyboardInterrupt, which a shell ignores where it runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_wait_is_ended_by_a_signal_that_another_thread_receives(interruptible):
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
