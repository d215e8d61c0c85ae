"""The budget for requests: bytes being received, and of requests that are whole and not stored yet.

gRPC gives a message once it is whole. What it holds of the others is measured: the bytes that the kernel counted on a
connection since its oldest pending read began, less the messages delivered since. A caller that announces a large
request (`convlens-request-bytes`) is refused before it is read where there is no room; one that does not is refused as
soon as its connection, its tenant or all of them together hold too much. Callers of small requests never wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc

from convlens.server import metrics
from convlens.server.status import RETRY_SECONDS, Refusal
from convlens.server.transport.sockets import Sockets

INTERVAL_SECONDS: Final = 0.05
"""Time between two looks at what pending reads hold."""
SOON_SECONDS: Final = 0.01
"""The same in a burst, and while a request without images is awaited: it comes at once, or has more than it may."""
SMALL_BYTES: Final = 1 << 20
"""Requests up to this size also have the last quarter of the budget."""
PLAIN_BYTES: Final = 64 << 10
"""Bytes of a request without images."""
PATIENCE_SECONDS: Final = 30.0
"""Time that one request may take while its connection brings less than SLOW_BYTES a second."""
SLOW_BYTES: Final = 16 << 10
BURST_BYTES: Final = 16 << 20
BURST_SECONDS: Final = 1.0
"""So long after so much was held, free memory is given back to the kernel."""


class Connection:
    """What one peer's calls hold. Behind a proxy several tenants may share it; it counts as the last one's."""

    def __init__(self, peer: str, received: int | None, now: float) -> None:
        self.peer = peer
        self.tenant = ""
        self.reads: dict[Read, None] = {}
        """Pending, oldest first."""
        self.stored = 0
        """Bytes of requests that are whole and still needed."""
        self.rate = math.inf
        """Bytes received in the last second."""
        self._received = received or 0
        self._delivered = 0
        self._mark = (now, self._received)

    @property
    def level(self) -> int:
        """Bytes received less those delivered: what it grows by while a read is pending may be held by gRPC."""
        return self._received - self._delivered

    @property
    def incomplete(self) -> int:
        """Bytes of messages that are not whole, at most; no less than was announced."""
        if not self.reads:
            return 0
        return max(self.level - next(iter(self.reads)).level, sum(read.announced for read in self.reads))

    @property
    def has_small(self) -> bool:
        """Whether it waits for requests without images, and no others."""
        return bool(self.reads) and all(read.most <= PLAIN_BYTES for read in self.reads)

    @property
    def held(self) -> int:
        """All bytes that it holds."""
        return self.incomplete + self.stored

    def measured(self, received: int | None, now: float) -> None:
        """Takes the kernel's count."""
        if received is None:
            return
        self._received = received
        since, before = self._mark
        if now - since >= 1:
            self.rate = (received - before) / (now - since)
            self._mark = (now, received)

    def delivered(self, size: int) -> None:
        """A message of `size` bytes is whole, which came in frames of 16 KiB."""
        self._delivered += size + 9 * (size // 16_384 + 1)


@dataclasses.dataclass(eq=False, slots=True)
class Read:
    """One message that is waited for."""

    connection: Connection
    tenant: str
    most: int
    """Bytes that it may have."""
    announced: int
    began: float | None
    """When its call began; None where the message may be long in coming: on a stream."""
    level: int
    """That of its connection when it began."""
    refused: asyncio.Future[Any]
    """Refused by the budget, or done by whoever reads."""


class ReceiveBudget:
    """Bounds what connections, tenants and all callers hold. For the event loop's thread alone."""

    def __init__(self, total: int, tenant_share: float, largest: int, after_burst: Callable[[], object]) -> None:
        """A connection may hold half of `total`, a tenant its share, and each a request of the `largest` size.

        `after_burst` is called once much was held, and is no more.
        """
        self._total = total
        self._connection = max(total // 2, largest)
        self._tenant = max(int(total * tenant_share), largest)
        self._after_burst = after_burst
        self._loop = asyncio.get_running_loop()
        self._sockets = Sockets()
        self._connections: dict[str, Connection] = {}
        self._stored: Counter[str] = Counter()
        """By tenant."""
        self._burst = 0.0
        """When a burst was last seen; 0 when its memory has been given back."""
        self._requests: dict[int, weakref.ref[Any]] = {}
        """By id, since messages have no hash."""
        self._timer: asyncio.TimerHandle | None = None
        self._released = asyncio.Event()

    # --- reads ---

    def begin(self, peer: str, tenant: str, most: int, announced: int, *, one: bool) -> Read:
        """A message will be read: the only `one` of its call, or one of a stream's. Raises a Refusal without room."""
        now = time.monotonic()
        connection = self._connections.get(peer)
        received = self._sockets.received(peer)
        if connection is None:
            connection = self._connections[peer] = Connection(peer, received, now)
        connection.measured(received, now)
        connection.tenant = tenant
        announced = announced if announced > SMALL_BYTES else 0
        if announced and (refusal := self._without_room(connection, tenant, announced)):
            self._drop(connection)
            raise refusal
        refused = self._loop.create_future()
        read = Read(connection, tenant, most, announced, now if one else None, connection.level, refused)
        connection.reads[read] = None
        self._look_within(SOON_SECONDS if connection.has_small else INTERVAL_SECONDS)
        return read

    def end(self, read: Read) -> None:
        """The message is there, or will not come."""
        read.connection.reads.pop(read, None)
        self._drop(read.connection)

    def refusal(self, read: Read, size: int) -> Refusal | None:
        """The message is whole: why it is refused, if it is."""
        read.connection.delivered(size)
        if size > read.most:
            return too_large(size, read.most)
        if size <= PLAIN_BYTES or size <= read.announced:
            return None
        return self._without_room(read.connection, read.tenant, size)

    @contextlib.contextmanager
    def parsing(self, read: Read, size: int) -> Iterator[None]:
        """Counts the bytes of a message for the length of a `with`."""
        self._store(read, size)
        try:
            yield
        finally:
            self._store(read, -size)

    def hold(self, read: Read, size: int, request: object) -> None:
        """Counts the bytes of a message for as long as `request`, which has them, lives."""
        if size <= PLAIN_BYTES:
            return
        self._store(read, size)

        def is_gone(reference: weakref.ref[Any]) -> None:  # called in whichever thread it dies in
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(release, reference)

        def release(reference: weakref.ref[Any]) -> None:
            self._requests.pop(id(reference))
            self._store(read, -size)

        reference = weakref.ref(request, is_gone)
        self._requests[id(reference)] = reference
        self._look_within(INTERVAL_SECONDS)

    def _store(self, read: Read, size: int) -> None:
        """So many bytes more, or less, of whole messages."""
        connection = read.connection
        self._connections[connection.peer] = connection
        connection.stored += size
        self._stored[read.tenant] += size
        if size < 0:
            self._drop(connection)
            self._released.set()

    async def wait_for_room(self, peer: str, tenant: str) -> None:
        """Waits until the next message of a stream may be read: its sender waits meanwhile, by HTTP/2's window."""
        while (connection := self._connections.get(peer)) and any(
            held > limit // 2 for _, held, limit in self._own_bounds(connection, tenant)
        ):
            self._released.clear()
            self._look_within(INTERVAL_SECONDS)
            await self._released.wait()

    # --- bounds ---

    def _own_bounds(self, connection: Connection, tenant: str) -> Iterator[tuple[str, int, int]]:
        """Name, bytes held and bytes allowed of each bound that a call shares with no other connection or tenant."""
        yield "max_receiving_bytes/connection", connection.held, self._connection
        if tenant:
            waiting = sum(it.incomplete for it in self._connections.values() if it.tenant == tenant)
            yield f"max_receiving_bytes/{tenant}", self._stored[tenant] + waiting, self._tenant

    def _without_room(self, connection: Connection, tenant: str, size: int) -> Refusal | None:
        """Why a request of `size` bytes has no room; None when it has."""
        total = self._total if size <= SMALL_BYTES else self._total * 3 // 4
        everything = ("max_receiving_bytes", sum(it.held for it in self._connections.values()), total)
        for name, held, limit in (*self._own_bounds(connection, tenant), everything):
            if held + size > limit:
                return full(name, f"{held} bytes of requests are held, and this one has {size}; allowed: {limit}")
        return None

    def _drop(self, connection: Connection) -> None:
        """Forgets a connection that holds nothing."""
        if not connection.reads and not connection.stored:
            self._connections.pop(connection.peer, None)

    # --- the look at what is held ---

    def _look_within(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if self._timer and self._timer.when() > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        """Measures what is held, and refuses who holds too much."""
        self._timer = None
        now = time.monotonic()
        reading = [it for it in self._connections.values() if it.reads]
        for connection in reading:
            connection.measured(self._sockets.received(connection.peer), now)
        if is_burst := sum(it.held for it in self._connections.values()) > BURST_BYTES:
            self._burst = now
        elif self._burst and now - self._burst > BURST_SECONDS:
            self._burst = 0.0
            self._after_burst()
        for connection in reading:
            self._refuse_slow(connection, now)
            self._refuse_large(connection)
            self._refuse_beyond("max_receiving_bytes/connection", self._connection, [connection])
        for tenant in {it.tenant for it in self._connections.values()} - {""}:
            theirs = [it for it in self._connections.values() if it.tenant == tenant]
            self._refuse_beyond(f"max_receiving_bytes/{tenant}", self._tenant, theirs)
        self._refuse_beyond("max_receiving_bytes", self._total, list(self._connections.values()))
        self._released.set()
        if self._connections or self._burst:
            is_soon = is_burst or any(it.has_small for it in self._connections.values())
            self._look_within(SOON_SECONDS if is_soon else INTERVAL_SECONDS)

    def _refuse_slow(self, connection: Connection, now: float) -> None:
        """Ends calls whose only request does not come."""
        for read in list(connection.reads):
            if read.began is None or now - read.began < PATIENCE_SECONDS:
                continue
            if read.most <= PLAIN_BYTES or connection.rate < SLOW_BYTES:
                message = f"request: was not whole within {PATIENCE_SECONDS:g} s; allowed: slower, if bytes keep coming"
                self._refuse(
                    read, Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "REQUEST_INCOMPLETE", message, field="request")
                )

    def _refuse_large(self, connection: Connection) -> None:
        """Ends calls that may have no images, on a connection with no others, when more comes than they may have."""
        while connection.has_small:
            allowed = PLAIN_BYTES * 2 * (len(connection.reads) + 1)
            if (held := connection.incomplete) <= allowed:
                return
            self._refuse(next(iter(connection.reads)), too_large(held, PLAIN_BYTES, "has sent"))

    def _refuse_beyond(self, name: str, limit: int, connections: list[Connection]) -> None:
        """Refuses reads until `connections` hold no more than `limit`: the slowest of those that hold much first."""
        while (held := sum(it.held for it in connections)) > limit:
            large = [it for it in connections if it.reads and it.held * len(connections) >= limit]
            if not large:
                return
            slowest = min(large, key=lambda it: it.rate)
            self._refuse(next(iter(slowest.reads)), full(name, f"{held} bytes of requests are held; allowed: {limit}"))

    def _refuse(self, read: Read, refusal: Refusal) -> None:
        read.connection.reads.pop(read, None)
        self._drop(read.connection)
        if not read.refused.done():
            read.refused.set_exception(refusal)


def full(bound: str, message: str) -> Refusal:
    """No room just now, by the name of the bound."""
    metrics.REFUSED.labels(bound.partition("/")[0]).inc()
    return Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "SERVER_FULL",
        f"{bound}: {message}; try again later",
        retry_after=RETRY_SECONDS,
        quota=bound,
    )


def too_large(size: int, most: int, verb: str = "is") -> Refusal:
    """A message beyond its method's limit."""
    return Refusal(
        grpc.StatusCode.INVALID_ARGUMENT,
        "REQUEST_TOO_LARGE",
        f"request: {verb} {size} bytes; allowed: {most}",
        field="request",
    )
