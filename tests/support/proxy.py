"""A TCP proxy that spoils connections on demand: late, cut, half-open, or choked after so many bytes.

It forwards to one port of the loopback interface, in a thread of its own, and knows nothing of what it forwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

PIECE = 1 << 16


class Link:
    """One connection: the caller's side and the side of what is called, which a deaf link never has."""

    def __init__(self, *, deaf: bool) -> None:
        self.deaf = deaf
        self.writers: list[asyncio.StreamWriter] = []

    def reset(self) -> None:
        """Ends both sides at once, with a reset where the system lets us."""
        for writer in self.writers:
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


class FaultProxy:
    """Listens on `port`. Faults hold for all connections until mend(), except that what once was half-open stays so."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut = self._deaf = False
        self._late = 0.0
        self._ration: int | None = None
        self.refused = 0
        """Connections turned away by cut()."""
        self.swallowed = 0
        """Bytes that half-open connections took and nobody got."""
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    # --- faults ---

    def delay(self, seconds: float) -> None:
        """Every piece, either way, is late."""
        self._late = seconds

    def cut(self) -> None:
        """Resets every connection, and those that come."""
        self._cut = True
        self._do(self._reset())

    def half_open(self) -> None:
        """What is connected, or connects now, is never answered and never told that it is not."""
        self._deaf = True
        self._do(self._deafen())

    def choke(self, count: int) -> None:
        """Callers get no more than `count` bytes in all."""
        self._open.clear()
        self._ration = count

    @property
    def choked(self) -> bool:
        """True once the ration is used up."""
        return self._ration == 0

    def mend(self) -> None:
        """Ends all faults."""
        self._cut = self._deaf = False
        self._late, self._ration = 0.0, None
        self._loop.call_soon_threadsafe(self._open.set)

    def close(self) -> None:
        """Ends every connection and the thread."""
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- in the loop ---

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _reset(self) -> None:
        for link in self._links:
            link.reset()

    async def _deafen(self) -> None:
        for link in self._links:
            link.deaf = True

    async def _shut(self) -> None:
        self._server.close()
        await self._reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(deaf=self._deaf)
        link.writers.append(writer)
        if self._cut:
            self.refused += 1
            link.reset()
            return
        self._links.add(link)
        try:
            if link.deaf:
                await self._pump(link, reader, None, down=False)
                return
            to, back = await asyncio.open_connection("127.0.0.1", self._upstream)
            link.writers.append(back)
            pumps = (self._pump(link, reader, back, down=False), self._pump(link, to, writer, down=True))
            self._tasks |= (tasks := {asyncio.create_task(it) for it in pumps})
            await asyncio.wait(tasks)
            self._tasks -= tasks
        except OSError:
            link.reset()  # nobody listens there
        finally:
            self._links.discard(link)

    async def _pump(self, link: Link, reader, writer: asyncio.StreamWriter | None, *, down: bool) -> None:
        try:
            while data := await reader.read(PIECE):
                if self._late:
                    await asyncio.sleep(self._late)
                if down and not link.deaf:
                    data = await self._rationed(data, writer)
                if link.deaf or writer is None:
                    self.swallowed += len(data)
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        if not link.deaf:
            link.reset()

    async def _rationed(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        """What may not be sent yet, once it may."""
        while self._ration is not None and len(data) > self._ration:
            writer.write(data[: self._ration])
            data, self._ration = data[self._ration :], 0
            await self._open.wait()
        if self._ration is not None:
            self._ration -= len(data)
        return data


@contextlib.contextmanager
def proxied(upstream: int) -> Iterator[FaultProxy]:
    """A FaultProxy for the length of a `with`."""
    proxy = FaultProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
