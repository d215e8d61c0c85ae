"""Bounds the memory of responses: bytes of results from before they are read until gRPC has written them.

gRPC resumes a generator once its message has been framed, as far as the receiver's HTTP/2 windows allow. Until then the
message is in memory, so a part is admitted before it is read. gRPC cannot abort a call that has a message to send, so
a connection that does not read is closed as a whole, but only while others wait for the bytes it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import Any, Final

from convlens.server.auth.principal import current_tenant
from convlens.server.transport.sockets import Sockets

log = logging.getLogger(__name__)

COPIES: Final = 3
"""Of a part while it is sent: as read, as a message, and serialized by gRPC."""
SMALL_BYTES: Final = 64 << 10
"""The last quarter of the budget is for parts up to this size."""
CONNECTION_SHARE: Final = 8
"""A connection may hold one such share of the budget: little enough that a slow reader receives it in time."""
SLOW_BYTES: Final = 32 << 10
"""Bytes per second. A connection that reads more slowly may be closed."""
GRACE_SECONDS: Final = 1.0
"""Time that even the smallest part has to be read."""
CHECK_SECONDS: Final = 1.0
"""Interval of the search for connections that do not read."""


@dataclasses.dataclass(eq=False, slots=True)
class Write:
    """A part of a response that waits to be sent, or is being sent."""

    peer: str
    bounds: dict[str, int]
    """Limit in bytes by name, of each bound that applies to it."""
    size: int
    """Bytes, all copies included."""
    admitted: asyncio.Future[None]
    due: float = math.inf
    """When it should have been read, by the monotonic clock; infinite until gRPC has it."""

    def start(self) -> None:
        """Start the receiver's time: gRPC gets the part now."""
        self.due = time.monotonic() + GRACE_SECONDS + self.size / COPIES / SLOW_BYTES


class CallSendBudget:
    """The send budget of one call with a stream of responses."""

    def __init__(self, budget: SendBudget, context: Any) -> None:
        self._budget = budget
        self._context = context
        self._peer, self._tenant = context.peer(), current_tenant()

    @contextlib.asynccontextmanager
    async def part(self, size: int) -> AsyncIterator[Write]:
        """Reserve `size` bytes for a part that is read and sent within the `with`. Waits until they are free."""
        write = await self._budget.admit(self._peer, self._tenant, size)
        try:
            yield write
        finally:
            self._budget.release(write)


class UnarySendBudget(CallSendBudget):
    """The send budget of a call with one response, which gRPC sends after its handler has returned."""

    @contextlib.asynccontextmanager
    async def part(self, size: int) -> AsyncIterator[Write]:
        """Reserve `size` bytes until the call is done."""
        write = await self._budget.admit(self._peer, self._tenant, size)
        self._context.add_done_callback(lambda _: self._budget.release(write))
        yield write


class SendBudget:
    """Bounds the bytes of responses; parts beyond it wait, connections in turn. For the event loop's thread alone."""

    def __init__(self, total: int, tenant_share: float) -> None:
        self._total = total
        self._tenant = int(total * tenant_share)
        self._loop = asyncio.get_running_loop()
        self._sockets = Sockets()
        self._held: Counter[str] = Counter()
        """Bytes by bound."""
        self._writes: dict[Write, None] = {}
        """Admitted, oldest first."""
        self._waiting: dict[str, deque[Write]] = {}
        """By connection, in the order of their turns."""
        self._check_timer: asyncio.TimerHandle | None = None

    async def admit(self, peer: str, tenant: str, size: int) -> Write:
        """Wait until a part of `size` bytes fits. One that is larger than a bound is admitted alone."""
        bounds = {"all": self._total, peer: self._total // CONNECTION_SHARE}
        if size > SMALL_BYTES:
            bounds["large"] = self._total * 3 // 4
        if tenant:
            bounds[f"tenant {tenant}"] = self._tenant
        write = Write(peer, bounds, size * COPIES, self._loop.create_future())
        self._waiting.setdefault(peer, deque()).append(write)
        self._admit_waiting()
        if not write.admitted.done() and not self._check_timer:
            self._check_timer = self._loop.call_later(CHECK_SECONDS, self._check)
        try:
            await write.admitted
        except asyncio.CancelledError:
            self.release(write)
            raise
        return write

    def release(self, write: Write) -> None:
        """Free the bytes of a part that was sent, or will not be."""
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

    def _exceeded(self, write: Write) -> list[str]:
        """Return the bounds that do not admit a part now."""
        return [name for name, limit in write.bounds.items() if 0 < self._held[name] > limit - write.size]

    def _admit_waiting(self) -> None:
        """Admit one part per connection and turn, as long as any fits."""
        turns = deque(self._waiting)
        while turns:
            peer = turns.popleft()
            write = self._waiting[peer][0]
            if self._exceeded(write):
                continue
            queue = self._waiting.pop(peer)
            queue.popleft()
            if queue:
                self._waiting[peer] = queue  # behind the other connections
                turns.append(peer)
            self._writes[write] = None
            for name in write.bounds:
                self._held[name] += write.size
            if not write.admitted.done():  # its call may just have been cancelled
                write.admitted.set_result(None)

    def _check(self) -> None:
        """Close connections that do not read, longest overdue first, until the next part of each queue would fit."""
        self._check_timer = None
        if not self._waiting:
            return
        self._check_timer = self._loop.call_later(CHECK_SECONDS, self._check)
        first = [queue[0] for queue in self._waiting.values()]
        needed = sum(write.size for write in first)
        exceeded = {name for write in first for name in self._exceeded(write)}
        closed: set[str] = set()
        for write in sorted(self._writes, key=lambda write: write.due):
            if write.due > time.monotonic() or needed <= 0:
                return
            if write.peer in closed or exceeded.isdisjoint(write.bounds):
                continue
            log.warning("peer=%s does not read its responses while others wait: closing its connection", write.peer)
            self._sockets.shut(write.peer)
            closed.add(write.peer)
            needed -= self._held[write.peer]
