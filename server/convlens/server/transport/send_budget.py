"""The budget for answers: bytes of results from before they are read until gRPC has passed them on to the network.

gRPC resumes a generator once its message has gone into frames, as far as the reader's HTTP/2 windows let it. Until then
the message is in memory, so a part waits for room before it is read. gRPC cannot end a call that has a message to
send, so a connection that does not read is closed as a whole, but only while others wait for the room it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from convlens.server.auth.principal import tenant
from convlens.server.transport.sockets import Sockets

log = logging.getLogger(__name__)

COPIES: Final = 3
"""Of a part while it is sent: as it was read, as a message, and gRPC's."""
SMALL_BYTES: Final = 64 << 10
"""Parts up to this size also have the last quarter of the budget."""
CONNECTION_SHARE: Final = 8
"""A connection has this part of the budget: few enough bytes that a slow reader gets them all within its patience."""
SLOW_BYTES: Final = 32 << 10
"""Bytes of a part that are read in a second, at least, or its connection may be closed."""
GRACE_SECONDS: Final = 1.0
"""Time to be read in that the smallest part has."""
LOOK_SECONDS: Final = 1.0
"""Time between two looks for connections that do not read."""
BURST_BYTES: Final = 16 << 20
BURST_SECONDS: Final = 1.0
"""So long after so much was held, free memory is given back to the kernel."""


@dataclasses.dataclass(eq=False, slots=True)
class Write:
    """A part that is to be sent."""

    peer: str
    bounds: dict[str, int]
    """The bytes that may be held, by the names of the bounds that hold for it."""
    size: int
    admitted: asyncio.Future[None]
    due: float = math.inf
    """When it should have been read; never before it is there to be read."""

    def begin(self) -> None:
        """It is given to gRPC now, and its reader's time begins."""
        self.due = time.monotonic() + GRACE_SECONDS + self.size / COPIES / SLOW_BYTES


class Sending:
    """What one call sends."""

    def __init__(self, budget: SendBudget, context: Any) -> None:
        self._budget = budget
        self._context = context
        self._peer, self._tenant = context.peer(), tenant()

    @contextlib.asynccontextmanager
    async def part(self, size: int) -> AsyncIterator[Write]:
        """Has room for a part of a stream, which is made and sent within the `with`."""
        write = await self._budget.admit(self._peer, self._tenant, size)
        try:
            yield write
        finally:
            self._budget.release(write)


class SendingOne(Sending):
    """The same of a call with one answer, which gRPC sends after the handler has returned it."""

    @contextlib.asynccontextmanager
    async def part(self, size: int) -> AsyncIterator[Write]:
        """Has room for the answer until the call is done."""
        write = await self._budget.admit(self._peer, self._tenant, size)
        self._context.add_done_callback(lambda _: self._budget.release(write))
        yield write


class SendBudget:
    """Bounds what is held for readers. Who finds no room waits: connections in turns. For the event loop's thread."""

    def __init__(self, total: int, tenant_share: float, after_burst: Callable[[], object]) -> None:
        """`after_burst` is called once much was held, and is no more."""
        self._total = total
        self._tenant = int(total * tenant_share)
        self._after_burst = after_burst
        self._loop = asyncio.get_running_loop()
        self._sockets = Sockets()
        self._held: Counter[str] = Counter()
        """Bytes, by the names of bounds."""
        self._writes: dict[Write, None] = {}
        """Those that have room, oldest first."""
        self._waiting: dict[str, deque[Write]] = {}
        """Those that have none, by their connections, whose turn comes in this order."""
        self._look_timer: asyncio.TimerHandle | None = None
        self._burst_timer: asyncio.TimerHandle | None = None
        self._burst = 0.0
        """When a burst was last seen."""

    async def admit(self, peer: str, tenant: str, size: int) -> Write:
        """Waits until there is room for a part of `size` bytes. One that is larger than a bound goes alone."""
        bounds = {"all": self._total, peer: self._total // CONNECTION_SHARE}
        if size > SMALL_BYTES:
            bounds["large"] = self._total * 3 // 4
        if tenant:
            bounds[f"tenant {tenant}"] = self._tenant
        write = Write(peer, bounds, size * COPIES, self._loop.create_future())
        self._waiting.setdefault(peer, deque()).append(write)
        self._admit_waiting()
        if not write.admitted.done() and not self._look_timer:
            self._look_timer = self._loop.call_later(LOOK_SECONDS, self._look)
        try:
            await write.admitted
        except asyncio.CancelledError:
            self.release(write)
            raise
        return write

    def release(self, write: Write) -> None:
        """A part was sent, or will not be."""
        if write in self._writes:
            del self._writes[write]
            for name in write.bounds:
                self._held[name] -= write.size
                if not self._held[name]:
                    del self._held[name]
        else:
            self._waiting[write.peer].remove(write)
            if not self._waiting[write.peer]:
                del self._waiting[write.peer]
        self._admit_waiting()

    def _full(self, write: Write) -> list[str]:
        """The bounds that leave a part no room."""
        return [name for name, most in write.bounds.items() if 0 < self._held[name] > most - write.size]

    def _admit_waiting(self) -> None:
        turns = deque(self._waiting)
        while turns:
            peer = turns.popleft()
            write = self._waiting[peer][0]
            if self._full(write):
                continue
            queue = self._waiting.pop(peer)
            queue.popleft()
            if queue:
                self._waiting[peer] = queue  # behind the others
                turns.append(peer)
            self._writes[write] = None
            for name in write.bounds:
                self._held[name] += write.size
            if not write.admitted.done():  # it is where its call was cancelled a moment ago
                write.admitted.set_result(None)
        if self._held["all"] > BURST_BYTES:
            self._burst = self._loop.time()
            self._burst_timer = self._burst_timer or self._loop.call_later(BURST_SECONDS, self._end_burst)

    def _end_burst(self) -> None:
        self._burst_timer = None
        if self._held["all"] > BURST_BYTES or self._loop.time() - self._burst < BURST_SECONDS:
            self._burst_timer = self._loop.call_later(BURST_SECONDS, self._end_burst)
        else:
            self._after_burst()

    def _look(self) -> None:
        """Closes connections that do not read, who is longest overdue first, until all that wait would have room."""
        self._look_timer = None
        if not self._waiting:
            return
        self._look_timer = self._loop.call_later(LOOK_SECONDS, self._look)
        first = [queue[0] for queue in self._waiting.values()]
        needed = sum(write.size for write in first)
        full = {name for write in first for name in self._full(write)}
        closed: set[str] = set()
        for write in sorted(self._writes, key=lambda it: it.due):
            if write.due > time.monotonic() or needed <= 0:
                return
            if write.peer in closed or full.isdisjoint(write.bounds):
                continue
            log.warning("peer=%s does not read its answers while others wait: its connection is closed", write.peer)
            self._sockets.shut(write.peer)
            closed.add(write.peer)
            needed -= self._held[write.peer]
