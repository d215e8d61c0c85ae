"""A TCP proxy that injects faults into its connections: delays, resets, half-open links and a limit of bytes.

It forwards to one port of the loopback interface in its own thread, and does not interpret the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

READ_BYTES = 1 << 16


class Link:
    """One proxied connection: a socket to the client and one to the server, which a half-open link may lack."""

    def __init__(self, *, is_half_open: bool) -> None:
        self.is_half_open = is_half_open
        self.writers: list[asyncio.StreamWriter] = []

    def reset(self) -> None:
        """Reset both sockets at once."""
        for writer in self.writers:
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


class FaultProxy:
    """Listens on `port`. A fault applies to all connections until clear(); a half-open connection stays half-open."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = self._is_half_open = False
        self._delay = 0.0
        self._byte_limit: int | None = None
        self.rejected_connections = 0
        """Connections reset on arrival because of cut()."""
        self.dropped_bytes = 0
        """Bytes that half-open connections accepted and did not forward."""
        self._loop = asyncio.new_event_loop()
        self._is_unlimited = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    # --- faults ---

    def delay(self, seconds: float) -> None:
        """Delay every read, in both directions."""
        self._delay = seconds

    def cut(self) -> None:
        """Reset every connection, present and new."""
        self._is_cut = True
        self._do(self._reset())

    def half_open(self) -> None:
        """Drop the bytes of every connection, present and new, without closing it."""
        self._is_half_open = True
        self._do(self._make_links_half_open())

    def limit(self, count: int) -> None:
        """Forward no more than `count` further bytes to clients, in all."""
        self._is_unlimited.clear()
        self._byte_limit = count

    @property
    def is_limit_reached(self) -> bool:
        """True once limit() holds bytes back."""
        return self._byte_limit == 0

    def clear(self) -> None:
        """End all faults."""
        self._is_cut = self._is_half_open = False
        self._delay, self._byte_limit = 0.0, None
        self._loop.call_soon_threadsafe(self._is_unlimited.set)

    def close(self) -> None:
        """End every connection and the thread."""
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- in the event loop ---

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _reset(self) -> None:
        for link in self._links:
            link.reset()

    async def _make_links_half_open(self) -> None:
        for link in self._links:
            link.is_half_open = True

    async def _shut(self) -> None:
        self._server.close()
        await self._reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(is_half_open=self._is_half_open)
        link.writers.append(writer)
        if self._is_cut:
            self.rejected_connections += 1
            link.reset()
            return
        self._links.add(link)
        try:
            if link.is_half_open:
                await self._forward(link, reader, None, to_client=False)
                return
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            link.writers.append(server_writer)
            to_server = self._forward(link, reader, server_writer, to_client=False)
            to_client = self._forward(link, server_reader, writer, to_client=True)
            self._tasks |= (tasks := {asyncio.create_task(to_server), asyncio.create_task(to_client)})
            await asyncio.wait(tasks)
            self._tasks -= tasks
        except OSError:
            link.reset()  # the server refuses connections
        finally:
            self._links.discard(link)

    async def _forward(self, link: Link, reader, writer: asyncio.StreamWriter | None, *, to_client: bool) -> None:
        try:
            while data := await reader.read(READ_BYTES):
                if self._delay:
                    await asyncio.sleep(self._delay)
                if to_client and not link.is_half_open:
                    data = await self._write_up_to_limit(data, writer)
                if link.is_half_open or writer is None:
                    self.dropped_bytes += len(data)
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        if not link.is_half_open:
            link.reset()

    async def _write_up_to_limit(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Write what the limit allows, wait until it is cleared, and return the bytes still to write."""
        while self._byte_limit is not None and len(data) > self._byte_limit:
            writer.write(data[: self._byte_limit])
            data, self._byte_limit = data[self._byte_limit :], 0
            await self._is_unlimited.wait()
        if self._byte_limit is not None:
            self._byte_limit -= len(data)
        return data


@contextlib.contextmanager
def proxied(upstream: int) -> Iterator[FaultProxy]:
    """Run a FaultProxy in front of a port of the loopback interface."""
    proxy = FaultProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
