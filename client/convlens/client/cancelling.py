"""Calls that can be ended at once from another thread: by a client that is closed, by a map() that is left.

Knows gRPC's synchronous calls; asyncio cancels its tasks itself.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import Any, Final, Self, TypeVar

import grpc

from convlens.client.errors import Cancelled

T = TypeVar("T")
LOOKS_UP: Final = 0.25
"""Seconds between the moments at which a wait lets Ctrl-C through.

It reaches the main thread at that one's next step, and the system may have told another thread of the signal: a wait
without an end would go on.
"""


class ClientClosed(Cancelled):
    """A call was ended by this side: its client was closed, or the map() that it was a part of was left."""


def client_closed() -> ClientClosed:
    """What is raised for such a call."""
    return ClientClosed("the call was cancelled: its client was closed", reason="CLIENT_CLOSED")


class CallGroup:
    """Calls that end together, and the groups below it that end with it. Safe across threads."""

    def __init__(self, parent: CallGroup | None = None) -> None:
        self._parent = parent
        self._process = os.getpid()
        self._members: set[Any] = set()
        """Calls under way and groups below: what has a cancel()."""
        self._cancelled = threading.Event()
        if parent:
            parent._add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        if self._parent:
            self._parent._members.discard(self)

    @property
    def is_cancelled(self) -> bool:
        """True once cancel() was called; no call begins any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ends every call under way, every pause, and what would follow them, with ClientClosed.

        In a fork nothing: the calls are those of the process that made them, and to touch gRPC's copies would hang.
        """
        if os.getpid() != self._process:
            return
        self._cancelled.set()
        for member in list(self._members):
            member.cancel()

    def check(self) -> None:
        """Raises ClientClosed where nothing is to begin any more."""
        if self.is_cancelled:
            raise client_closed()

    def pause(self, seconds: float) -> None:
        """Waits, at most until cancel()."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self._cancelled.wait(min(left, LOOKS_UP))
            self.check()

    @contextmanager
    def running(self, begin: Callable[[], Any]) -> Iterator[Any]:
        """The call that `begin` makes; it ends with the `with` at the latest. ClientClosed once cancel() was called."""
        self.check()
        try:
            call = begin()
        except ValueError:  # the channel was closed meanwhile
            self.check()
            raise
        try:
            self._add(call)
            yield call
            _forget(call)
        except (grpc.RpcError, GeneratorExit) as ended:
            _forget(call)
            if isinstance(ended, grpc.RpcError):
                self.check()
            raise
        finally:
            self._members.discard(call)
            call.cancel()

    def _add(self, member: Any) -> None:
        self._members.add(member)
        if self.is_cancelled:  # meanwhile, by a thread that did not find it there yet
            member.cancel()


def result_of(future: Future[T]) -> T:
    """The future's result, once there is one."""
    while not wait([future], LOOKS_UP).done:
        pass
    return future.result()


def _forget(call: Any) -> None:
    """Cancels a call and takes what gRPC still has to say of it, since it keeps 20 KiB of the call until then.

    There is no public way to do that; where the private one goes, the memory is kept until the channel is closed. Not
    for a call that a signal interrupted: gRPC has given that one up, and its queue with it.
    """
    call.cancel()
    with suppress(AttributeError):
        while call._state.due:
            call._consume_next_event()
