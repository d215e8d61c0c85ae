"""How the synchronous client makes calls: a gRPC channel per process, groups of calls that can be cancelled, threads.

Safe across threads and forks. What is under way at a fork stays with the parent: calls of its other threads, and
iterators of map() and watch(). A child that is forked while other threads are in calls may inherit gRPC's locks in
whatever state they were, and hang: fork before such calls begin, make the Client in the child, or let multiprocessing
spawn it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import grpc

from convlens.client.connection import Connection, Metadata, call_metadata
from convlens.client.errors import ClientClosed
from convlens.client.stubs import Cancellable, Stubs

P = ParamSpec("P")
T = TypeVar("T")
POLL_INTERVAL: Final = 0.25
"""Seconds after which a wait looks up, so that Ctrl-C gets through.

KeyboardInterrupt is raised at the main thread's next bytecode, but the system may deliver the signal to another
thread: a wait without an end would go on.
"""


@dataclass(frozen=True, slots=True)
class Session:
    """The channel of one process."""

    process: int
    channel: grpc.Channel
    stubs: Stubs
    calls: CallGroup

    def is_connected(self) -> bool:
        """Return True if there is a connection now."""
        states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
        callback = states.put
        self.channel.subscribe(callback)
        try:
            return states.get(timeout=1.0) is grpc.ChannelConnectivity.READY
        except Empty:
            return False
        finally:
            self.channel.unsubscribe(callback)


class Transport:
    """The sessions of a client: one per process, made at the first call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._is_closed_for_good = False

    @property
    def current(self) -> Session | None:
        """The session, if there is one."""
        return self._session

    def session(self) -> Session:
        """Return this process's session; a channel inherited by a fork is left alone, since using it would hang."""
        with self._lock:
            if self._is_closed_for_good:
                raise ClientClosed
            if self._session is None or self._session.process != os.getpid():
                channel = self._connection.channel(grpc, self._connection.credentials())
                calls = CallGroup(self._connection)
                self._session = Session(os.getpid(), channel, Stubs(Cancellable(channel)), calls)
            return self._session

    def close(self, *, for_good: bool = False) -> None:
        """Cancel the calls under way and close the channel; unless `for_good`, a later call makes a new one."""
        with self._lock:
            self._is_closed_for_good = self._is_closed_for_good or for_good
            session, self._session = self._session, None
        if session and session.process == os.getpid():
            session.calls.cancel()
            session.channel.close()


class CallGroup:
    """Calls that are cancelled together, with those of the groups below. Safe across threads."""

    def __init__(self, connection: Connection, parent: CallGroup | None = None) -> None:
        self._connection = connection
        self._parent = parent
        self._process = os.getpid()
        self._members: set[Any] = set()
        """Calls under way and groups below: objects with a cancel()."""
        self._cancelled = threading.Event()
        if parent:
            parent._add(self)

    def subgroup(self) -> CallGroup:
        """Return a group that is cancelled with this one, and at the end of a `with`."""
        return CallGroup(self._connection, self)

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
        """End every call and pause under way, and whatever would follow them, with ClientClosed.

        Does nothing in a fork: the calls belong to the process that made them, and using gRPC's copies would hang.
        """
        if os.getpid() != self._process:
            return
        self._cancelled.set()
        for member in list(self._members):
            member.cancel()

    def check(self) -> None:
        """Raise ClientClosed if the group is cancelled."""
        if self.is_cancelled:
            raise ClientClosed

    def pause(self, seconds: float) -> None:
        """Wait, at most until cancel()."""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            self._cancelled.wait(min(remaining, POLL_INTERVAL))
            self.check()

    def unary(self, method: Any, request: Any, timeout: float | None, token: Metadata) -> Any:
        """Make a unary call and return its response. Raises grpc.RpcError, or ClientClosed once cancelled."""
        with self.stream(method, request, timeout, token) as responses:
            (response,) = responses  # see Cancellable
            return response

    @contextmanager
    def stream(self, method: Any, request: Any, timeout: float | None, token: Metadata) -> Iterator[Any]:
        """Make a streaming call, which ends with the `with`, and give its responses. Errors as of unary()."""
        metadata = call_metadata(token, request)
        with self.running(partial(method, request, timeout=timeout, metadata=metadata)) as call:
            yield call
            self._connection.read_trailers(call.trailing_metadata())

    @contextmanager
    def running(self, begin: Callable[[], Any]) -> Iterator[Any]:
        """Give the call that `begin` makes, and end it with the `with`. ClientClosed once cancelled."""
        self.check()
        try:
            call = begin()
        except ValueError:  # the channel was closed meanwhile
            self.check()
            raise
        try:
            self._add(call)
            yield call
            _release(call)
        except (grpc.RpcError, GeneratorExit) as ended:
            _release(call)
            if isinstance(ended, grpc.RpcError):
                self.check()
            raise
        finally:
            self._members.discard(call)
            call.cancel()

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `function` in a daemon thread of its own; the program may end while it runs."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised by outcome()
                future.set_exception(error)

        threading.Thread(target=run, name="convlens-map", daemon=True).start()
        return future

    def outcome(self, future: Future[T]) -> T:
        """Wait for what start() returned, and return its result."""
        return wait_for(future)

    def _add(self, member: Any) -> None:
        self._members.add(member)
        if self.is_cancelled:  # meanwhile, by a thread that did not see the member yet
            member.cancel()


def wait_for(future: Future[T]) -> T:
    """Wait for a future, open to Ctrl-C, and return its result."""
    while not wait([future], POLL_INTERVAL).done:
        pass
    return future.result()


def run_blocking(function: Callable[Concatenate[Any, P], T], images: Any, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function(images, …)`; the asynchronous client does so in a thread."""
    return function(images, *args, **kwargs)


def iterate(items: Iterable[Any]) -> Iterator[Any]:
    """Iterate over an iterable; the asynchronous client accepts asynchronous ones, too."""
    return iter(items)


def _release(call: Any) -> None:
    """Cancel a call and take gRPC's remaining events of it, since gRPC keeps 20 KiB per call until then.

    There is no public way; without the private one the memory is kept until the channel is closed. Not for a call that
    a signal interrupted: gRPC has given that one up, and its queue with it.
    """
    call.cancel()
    with suppress(AttributeError):
        while call._state.due:
            call._consume_next_event()
