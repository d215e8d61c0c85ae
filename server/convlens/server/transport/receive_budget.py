"""Bounds the memory of requests: bytes being received, and those of complete requests that are not stored yet.

gRPC delivers complete messages only. What it buffers of incomplete ones is measured: the bytes that the kernel counted
on a connection since its oldest pending read started, less the messages delivered since. A caller that announces a
large request (`convlens-request-bytes`) is rejected before the request is read; one that does not, as soon as its
connection, its tenant or all together hold too much. Small requests never wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from convlens.server import metrics
from convlens.server.status import RETRY_SECONDS
from convlens.server.transport.sockets import Sockets
from convlens.v1.reasons import Reason
from convlens.v1.status_error import StatusError

INTERVAL_SECONDS: Final = 0.05
"""Interval at which pending reads are measured."""
SHORT_INTERVAL_SECONDS: Final = 0.01
"""The same in a burst, and while a request without images is pending: it arrives at once or is too large."""
SMALL_BYTES: Final = 1 << 20
"""The last quarter of the budget is for requests up to this size."""
PLAIN_BYTES: Final = 64 << 10
"""Limit of a request without images."""
SLOW_SECONDS: Final = 30.0
"""Time that a request may take on a connection slower than SLOW_BYTES."""
SLOW_BYTES: Final = 16 << 10
"""Bytes per second."""
BURST_BYTES: Final = 16 << 20
"""Bytes of requests held from which it is a burst."""


class Connection:
    """The bytes held by the calls of one peer. Behind a proxy tenants share it; it counts as the latest's."""

    def __init__(self, peer: str, received: int | None, now: float) -> None:
        self.peer = peer
        self.tenant = ""
        self.reads: dict[Read, None] = {}
        """Pending ones, oldest first."""
        self.stored = 0
        """Bytes of complete requests that are still in memory."""
        self.rate = math.inf
        """Bytes per second, over the last second or more."""
        self._received = received or 0
        self._delivered = 0
        self._mark = (now, self._received)

    @property
    def level(self) -> int:
        """Bytes received and not delivered. What it grows by while a read is pending, gRPC may be buffering."""
        return self._received - self._delivered

    @property
    def incomplete(self) -> int:
        """Upper bound of the bytes of incomplete messages; at least what was announced."""
        if not self.reads:
            return 0
        return max(self.level - next(iter(self.reads)).level, sum(read.announced for read in self.reads))

    @property
    def has_small(self) -> bool:
        """Whether only requests without images are pending."""
        return bool(self.reads) and all(read.limit <= PLAIN_BYTES for read in self.reads)

    @property
    def held(self) -> int:
        """Bytes of incomplete and complete requests."""
        return self.incomplete + self.stored

    def update(self, received: int | None, now: float) -> None:
        """Take the kernel's count of received bytes; None where it is not known."""
        if received is None:
            return
        self._received = received
        since, before = self._mark
        if now - since >= 1:
            self.rate = (received - before) / (now - since)
            self._mark = (now, received)

    def deliver(self, size: int) -> None:
        """Count a complete message of `size` bytes, which arrived in frames of 16 KiB."""
        self._delivered += size + 9 * (size // 16_384 + 1)


@dataclasses.dataclass(eq=False, slots=True)
class Read:
    """A pending read of one message."""

    connection: Connection
    tenant: str
    limit: int
    """Bytes that the message may have."""
    announced: int
    """Bytes that its caller announced; 0 for none, or few."""
    started: float | None
    """When its call started; None on a stream, where the next message may take any time."""
    level: int
    """That of its connection at the start."""
    outcome: asyncio.Future[Any]
    """The message, set by the reader; or StatusError, set by the budget."""


class ReceiveBudget:
    """Bounds the bytes that a connection, a tenant and all together hold. For the event loop's thread alone."""

    def __init__(self, total: int, tenant_share: float, max_request: int) -> None:
        """A connection may hold half of `total`, a tenant its share, and each at least one request of `max_request`."""
        self._total = total
        self._connection = max(total // 2, max_request)
        self._tenant = max(int(total * tenant_share), max_request)
        self._loop = asyncio.get_running_loop()
        self._sockets = Sockets()
        self._connections: dict[str, Connection] = {}
        self._stored: Counter[str] = Counter()
        """By tenant."""
        self._timer: asyncio.TimerHandle | None = None

    # --- reads ---

    def start_read(self, peer: str, tenant: str, limit: int, announced: int, *, is_unary: bool) -> Read:
        """Register a read. StatusError where the announced message does not fit.

        `is_unary` is true for the only message of a call, false for one of a stream.
        """
        now = time.monotonic()
        connection = self._connections.get(peer)
        received = self._sockets.received(peer)
        if connection is None:
            connection = self._connections[peer] = Connection(peer, received, now)
        connection.update(received, now)
        connection.tenant = tenant
        announced = announced if announced > SMALL_BYTES else 0
        if announced and (error := self._rejection(connection, tenant, announced)):
            self._remove_idle(connection)
            raise error
        started = now if is_unary else None
        read = Read(connection, tenant, limit, announced, started, connection.level, self._loop.create_future())
        connection.reads[read] = None
        self._enforce_within(SHORT_INTERVAL_SECONDS if connection.has_small else INTERVAL_SECONDS)
        return read

    def end_read(self, read: Read) -> None:
        """Remove a read that is complete, or was given up."""
        read.connection.reads.pop(read, None)
        self._remove_idle(read.connection)

    def check(self, read: Read, size: int) -> StatusError | None:
        """Count a complete message; return why it is rejected, or None."""
        read.connection.deliver(size)
        if size > read.limit:
            return request_too_large(size, read.limit)
        if size <= PLAIN_BYTES or size <= read.announced:
            return None
        return self._rejection(read.connection, read.tenant, size)

    @contextlib.contextmanager
    def parsing(self, read: Read, size: int) -> Iterator[None]:
        """Count the bytes of a message for the duration of a `with`."""
        self._store(read.connection, read.tenant, size)
        try:
            yield
        finally:
            self._store(read.connection, read.tenant, -size)

    def hold(self, read: Read, size: int, request: object) -> None:
        """Count the bytes of a message until `request`, which holds them, is garbage."""
        if size <= PLAIN_BYTES:
            return
        connection, tenant = read.connection, read.tenant  # without the read itself, which has the message's bytes
        self._store(connection, tenant, size)

        def release() -> None:  # called in any thread
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._store, connection, tenant, -size)

        weakref.finalize(request, release).atexit = False
        self._enforce_within(INTERVAL_SECONDS)

    def _store(self, connection: Connection, tenant: str, size: int) -> None:
        """Add `size` bytes, or free −`size`, of complete messages."""
        self._connections[connection.peer] = connection
        connection.stored += size
        self._stored[tenant] += size
        if size < 0:
            self._remove_idle(connection)

    # --- bounds ---

    def _rejection(self, connection: Connection, tenant: str, size: int) -> StatusError | None:
        """Return why a request of `size` bytes does not fit, or None."""
        total = self._total if size <= SMALL_BYTES else self._total * 3 // 4
        bounds = [("max_receiving_bytes/connection", connection.held, self._connection)]
        if tenant:
            incomplete = sum(connection.incomplete for connection in self._connections_of(tenant))
            bounds.append((f"max_receiving_bytes/{tenant}", self._stored[tenant] + incomplete, self._tenant))
        bounds.append(("max_receiving_bytes", sum(each.held for each in self._connections.values()), total))
        for name, held, limit in bounds:
            if held + size > limit:
                return server_full(
                    name, f"{held} bytes of requests are held, and this one has {size}; allowed: {limit}"
                )
        return None

    def _connections_of(self, tenant: str) -> list[Connection]:
        return [connection for connection in self._connections.values() if connection.tenant == tenant]

    def _remove_idle(self, connection: Connection) -> None:
        """Remove a connection that holds nothing."""
        if not connection.reads and not connection.stored:
            self._connections.pop(connection.peer, None)

    # --- enforcement ---

    def _enforce_within(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if self._timer and self._timer.when() > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._enforce)

    def _enforce(self) -> None:
        """Measure what is held, and reject reads beyond the bounds."""
        self._timer = None
        now = time.monotonic()
        connections = list(self._connections.values())
        reading = [connection for connection in connections if connection.reads]
        for connection in reading:
            connection.update(self._sockets.received(connection.peer), now)
        is_burst = sum(connection.held for connection in connections) > BURST_BYTES
        for connection in reading:
            self._reject_slow(connection, now)
            self._reject_large(connection)
            self._reject_beyond("max_receiving_bytes/connection", self._connection, [connection])
        for tenant in {connection.tenant for connection in self._connections.values()} - {""}:
            self._reject_beyond(f"max_receiving_bytes/{tenant}", self._tenant, self._connections_of(tenant))
        self._reject_beyond("max_receiving_bytes", self._total, list(self._connections.values()))
        if self._connections:
            is_soon = is_burst or any(connection.has_small for connection in self._connections.values())
            self._enforce_within(SHORT_INTERVAL_SECONDS if is_soon else INTERVAL_SECONDS)

    def _reject_slow(self, connection: Connection, now: float) -> None:
        """Reject unary calls whose request does not arrive."""
        for read in list(connection.reads):
            if read.started is None or now - read.started < SLOW_SECONDS:
                continue
            if read.limit <= PLAIN_BYTES or connection.rate < SLOW_BYTES:
                message = (
                    f"request: did not arrive within {SLOW_SECONDS:g} s; allowed: {SLOW_BYTES >> 10} KiB/s or more"
                )
                self._reject(read, StatusError(Reason.REQUEST_INCOMPLETE, message, field="request"))

    def _reject_large(self, connection: Connection) -> None:
        """Reject requests without images, on a connection with no others, once more arrives than they may have."""
        while connection.has_small:
            allowed = PLAIN_BYTES * 2 * (len(connection.reads) + 1)
            if (held := connection.incomplete) <= allowed:
                return
            self._reject(next(iter(connection.reads)), request_too_large(held, PLAIN_BYTES, "has sent"))

    def _reject_beyond(self, name: str, limit: int, connections: list[Connection]) -> None:
        """Reject reads until `connections` hold no more than `limit`: first the slowest of those that hold much."""
        while (held := sum(connection.held for connection in connections)) > limit:
            large = [each for each in connections if each.reads and each.held * len(connections) >= limit]
            if not large:
                return
            slowest = min(large, key=lambda connection: connection.rate)
            error = server_full(name, f"{held} bytes of requests are held; allowed: {limit}")
            self._reject(next(iter(slowest.reads)), error)

    def _reject(self, read: Read, error: StatusError) -> None:
        read.connection.reads.pop(read, None)
        self._remove_idle(read.connection)
        if not read.outcome.done():
            read.outcome.set_exception(error)


def server_full(bound: str, message: str) -> StatusError:
    """Count and describe an exceeded bound."""
    metrics.REFUSED.labels(bound.partition("/")[0]).inc()
    message = f"{bound}: {message}; try again later"
    return StatusError(Reason.SERVER_FULL, message, retry_after=RETRY_SECONDS, quota=bound)


def request_too_large(size: int, limit: int, verb: str = "is") -> StatusError:
    """Describe a message beyond its method's limit."""
    return StatusError(Reason.REQUEST_TOO_LARGE, f"request: {verb} {size} bytes; allowed: {limit}", field="request")
