"""How the asynchronous client makes calls: a gRPC channel per process and event loop, and tasks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

import grpc

from convlens.client.connection import Connection, Metadata, call_metadata
from convlens.client.errors import ClientClosed, ConvlensError, DataCorrupted
from convlens.client.images import may_block
from convlens.client.stubs import Stubs

P = ParamSpec("P")
T = TypeVar("T")
_CALLS_OF_PARENT: Final[list[Any]] = []
"""Calls that were under way when this process was forked: freeing one takes locks that gRPC's threads may have held."""


@dataclass(frozen=True, slots=True)
class AsyncSession:
    """The channel of one event loop."""

    process: int
    channel: grpc.aio.Channel
    stubs: Stubs
    calls: AsyncCallGroup

    def is_connected(self) -> bool:
        """Return True if there is a connection now."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY


class AsyncTransport:
    """The sessions of a client: one per process and event loop, made at the first call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sessions: dict[tuple[int, asyncio.AbstractEventLoop], AsyncSession] = {}

    async def session(self) -> AsyncSession:
        """Return the session of this process and event loop."""
        try:
            key = (os.getpid(), asyncio.get_running_loop())
        except RuntimeError:
            raise ConvlensError(
                "no event loop runs in this process: one that ran when it was forked stays with its parent; use a "
                "Client, or asyncio.run() in a process that multiprocessing spawns"
            ) from None
        for old in [old for old in self._sessions if old[0] != key[0] or old[1].is_closed()]:
            del self._sessions[old]
        if key not in self._sessions:
            credentials = await asyncio.to_thread(self._connection.credentials)  # which reads files
        if key not in self._sessions:  # nor has another task made it meanwhile
            channel = self._connection.channel(grpc.aio, credentials)
            calls = AsyncCallGroup(self._connection, asyncio.Event())
            self._sessions[key] = AsyncSession(key[0], channel, Stubs(channel), calls)
        return self._sessions[key]

    async def close(self) -> None:
        """Cancel this loop's calls under way and close its channel; a later call makes a new one."""
        session = self._sessions.pop((os.getpid(), asyncio.get_running_loop()), None)
        if session:
            session.calls.cancel()
            await session.channel.close()


class AsyncCallGroup:
    """Calls of one event loop that end with ClientClosed once `closed` is set, and tasks that end with the group."""

    def __init__(self, connection: Connection, closed: asyncio.Event) -> None:
        self._connection = connection
        self._closed = closed
        self._process = os.getpid()
        self._tasks: set[asyncio.Task[Any]] = set()

    def subgroup(self) -> AsyncCallGroup:
        """Return a group whose tasks end with an `async with`."""
        return AsyncCallGroup(self._connection, self._closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if os.getpid() != self._process:
            return  # a fork's copies of the tasks never end
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cancel(self) -> None:
        """End every pause, and what would follow it, with ClientClosed; calls end as their channel is closed."""
        self._closed.set()

    def check(self) -> None:
        """Raise ClientClosed if the client was closed."""
        if self._closed.is_set():
            raise ClientClosed

    async def pause(self, seconds: float) -> None:
        """Wait, at most until cancel()."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        self.check()

    async def unary(self, method: Any, request: Any, timeout: float | None, token: Metadata) -> Any:
        """Make a unary call and return its response. Raises grpc.RpcError, or ClientClosed once cancelled."""
        metadata = call_metadata(token, request)
        with self._running(lambda: method(request, timeout=timeout, metadata=metadata)) as call:
            response = await call
            if response is None:  # what grpc.aio makes of a message that cannot be parsed
                raise DataCorrupted("the response cannot be parsed")
            self._connection.read_trailers(await call.trailing_metadata())
            return response

    @asynccontextmanager
    async def stream(self, method: Any, request: Any, timeout: float | None, token: Metadata) -> AsyncIterator[Any]:
        """Make a streaming call, which ends with the `with`, and give its responses. Errors as of unary()."""
        metadata = call_metadata(token, request)
        with self._running(lambda: method(request, timeout=timeout, metadata=metadata)) as call:
            yield call
            self._connection.read_trailers(await call.trailing_metadata())

    @contextmanager
    def _running(self, begin: Callable[[], Any]) -> Iterator[Any]:
        """Give the call that `begin` makes, and end it with the `with`. ClientClosed once cancelled."""
        self.check()
        call = begin()
        try:
            yield call
        except grpc.RpcError:
            self.check()
            raise
        except asyncio.CancelledError:  # gRPC raises it, too, when its channel is closed
            task = asyncio.current_task()
            if not task or not task.cancelling():
                self.check()
            raise
        finally:
            if os.getpid() == self._process:
                call.cancel()
            else:
                _CALLS_OF_PARENT.append(call)

    def start(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Task[T]:
        """Run `function` in a task, which is cancelled at the end of the group."""
        task = asyncio.create_task(function(*args, **kwargs))
        self._tasks.add(task)
        return task

    async def outcome(self, task: asyncio.Task[T]) -> T:
        """Wait for what start() returned, and return its result."""
        try:
            return await task
        finally:
            self._tasks.discard(task)


async def run_blocking(function: Callable[Concatenate[Any, P], T], images: Any, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function(images, …)`, in a thread if reading the images may block the event loop."""
    if may_block(images):
        return await asyncio.to_thread(function, images, *args, **kwargs)
    return function(images, *args, **kwargs)


async def iterate(items: Any) -> AsyncIterator[Any]:
    """Iterate over an iterable or an asynchronous iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
