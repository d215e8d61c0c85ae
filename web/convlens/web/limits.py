"""Bounds of what is held at once: requests, bytes of bodies and results; and of how long sender and reader take."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convlens.web.problems import Problem
from convlens.web.settings import (
    BODY_SECONDS,
    CHUNK_BYTES,
    IDLE_SECONDS,
    MAX_REQUESTS,
    MIN_BYTES_PER_SECOND,
    PROBE_PATH,
    SEND_SECONDS,
)

log = logging.getLogger(__name__)

RETRY_AFTER: Final = 1.0
COPIES: Final = 5
"""How many times the bytes of a result are held at once, at most: as arrays, as text, and as a response."""


class SlowReader(Exception):
    """A client does not read its response."""


class ByteBudget:
    """The bytes that all requests together may hold."""

    def __init__(self, total: int) -> None:
        self.total = self._remaining = total

    def reserve(self, count: int) -> None:
        """Reserve bytes. Raises Problem 503 if there are not as many left."""
        if count > self._remaining:
            raise Problem(
                503, "SERVER_FULL", "the gateway holds as many bytes as it may; try again", retry_after=RETRY_AFTER
            )
        self._remaining -= count

    def release(self, count: int) -> None:
        """Return bytes that were reserved."""
        self._remaining += count


class Reservation:
    """The bytes that one request holds of a budget, from its first byte until its response has been sent."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held: dict[str, int] = {}

    def hold(self, purpose: str, count: int) -> None:
        """Hold at least `count` bytes for a purpose. Raises Problem 503 if as many are not left."""
        if (more := count - self._held.get(purpose, 0)) > 0:
            self._budget.reserve(more)
            self._held[purpose] = count

    def hold_result(self, size: int) -> None:
        """Hold what a result of `size` bytes takes. Raises Problem 413 for one that never fits, 503 for now."""
        count = COPIES * size
        if count > self._budget.total:
            message = (
                f"the result has {size} bytes, and the gateway passes on {self._budget.total // COPIES}; compute fewer "
                "layers or channels, as uint8, or call the server by the SDK"
            )
            raise Problem(413, "RESULT_TOO_LARGE", message)
        self.hold("result", count)

    def hold_drawing(self, count: int) -> None:
        """Hold the bytes that drawing takes. Raises Problem 413 for a photo that never fits, 503 for now."""
        if count > self._budget.total:
            raise Problem(
                413, "REQUEST_TOO_LARGE", "image: has too many pixels to draw on; send it smaller", field="image"
            )
        self.hold("drawing", count)

    def release(self) -> None:
        """Return all bytes."""
        self._budget.release(sum(self._held.values()))
        self._held.clear()


class Body:
    """The body of a request as it is received: bounded in bytes and time."""

    def __init__(self, receive: Receive, limit: int, reservation: Reservation) -> None:
        self._receive = receive
        self._limit = limit
        self._reservation = reservation
        self._received = 0
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._is_complete = False

    def announce(self, headers: Headers) -> None:
        """Check the bytes that Content-Length announces. Raises Problem for too many."""
        length = headers.get("content-length", "0")
        self._check(int(length) if length.isdecimal() else 0)

    async def receive(self) -> Message:
        """Receive the next message. Raises Problem for a body that is too large or too slow."""
        if self._is_complete:
            return await self._receive()  # waits until the client disconnects
        remaining = min(IDLE_SECONDS, self._deadline - asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(remaining):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "REQUEST_INCOMPLETE", "the request did not arrive completely in time") from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._check(self._received)
            self._reservation.hold("body", self._received)
            self._is_complete = not message.get("more_body", False)
        return message

    def _check(self, count: int) -> None:
        if count > self._limit:
            message = f"the request has more bytes than the {self._limit} allowed; send fewer or smaller images"
            raise Problem(413, "REQUEST_TOO_LARGE", message)


class Limits:
    """Middleware that bounds requests under way, their bodies, and how long their responses may wait for a reader."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, budget: ByteBudget) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._budget = budget
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._running >= MAX_REQUESTS and scope["path"] != PROBE_PATH:
            message = f"{MAX_REQUESTS} requests are under way; try again"
            await Problem(503, "SERVER_FULL", message, retry_after=RETRY_AFTER).response()(scope, receive, send)
            return
        self._running += 1
        reservation = Reservation(self._budget)
        scope.setdefault("state", {})["reservation"] = reservation
        body = Body(receive, self._max_body_bytes, reservation)
        try:
            body.announce(Headers(scope=scope))
        except Problem as problem:
            await problem.response()(scope, receive, send)
        else:
            try:
                await self._app(scope, body.receive, _in_chunks(send))
            except SlowReader:
                log.warning("a client does not read its response, or too slowly, and is disconnected")
        finally:
            reservation.release()
            self._running -= 1


def _in_chunks(send: Send) -> Send:
    """Return a `send` that passes bodies on in chunks. It raises SlowReader for a reader that is too slow."""

    async def send_in_time(message: Message) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await send(message)

    async def send_chunks(message: Message) -> None:
        body = message.get("body", b"")
        *starts, last = range(0, max(len(body), 1), CHUNK_BYTES)
        try:
            async with asyncio.timeout(SEND_SECONDS + len(body) / MIN_BYTES_PER_SECOND):
                for start in starts:
                    chunk = body[start : start + CHUNK_BYTES]
                    await send_in_time({"type": "http.response.body", "body": chunk, "more_body": True})
                await send_in_time({**message, "body": body[last:]} if starts else message)
        except TimeoutError:
            raise SlowReader from None

    return send_chunks
