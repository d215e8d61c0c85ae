"""Bounds of what is held at once: requests, bytes of bodies and results; and of how long sender and reader take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convlens.web.problems import Problem
from convlens.web.settings import BODY_SECONDS, CHUNK_BYTES, IDLE_SECONDS, MAX_REQUESTS, SEND_SECONDS

log = logging.getLogger(__name__)

RETRY_AFTER: Final = 1.0
COPIES: Final = 3
"""How many times the bytes of a result are held at once, at most: as arrays, as text, and as a response."""


class SlowReader(Exception):
    """A client does not read its response."""


class ByteBudget:
    """The bytes that all requests together may hold."""

    def __init__(self, total: int) -> None:
        self._total = self._remaining = total

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

    @contextmanager
    def holding_result(self, size: int) -> Iterator[None]:
        """Reserve what a result of `size` bytes takes while a `with` lasts. Raises Problem if as much is not left."""
        count = COPIES * size
        if count > self._total:
            message = (
                f"the result has {size} bytes, and the gateway passes on {self._total // COPIES}; compute fewer layers "
                "or channels, as uint8, or call the server by the SDK"
            )
            raise Problem(413, "RESULT_TOO_LARGE", message)
        self.reserve(count)
        try:
            yield
        finally:
            self.release(count)


class Body:
    """The body of a request as it is received: bounded in bytes and time."""

    def __init__(self, receive: Receive, limit: int, budget: ByteBudget) -> None:
        self._receive = receive
        self._limit = limit
        self._budget = budget
        self._reserved = 0
        self._received = 0
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._is_complete = False

    def announce(self, headers: Headers) -> None:
        """Reserve the bytes that Content-Length announces. Raises Problem for too many."""
        length = headers.get("content-length", "0")
        self._reserve(int(length) if length.isdecimal() else 0)

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
            self._reserve(self._received)
            self._is_complete = not message.get("more_body", False)
        return message

    def release(self) -> None:
        """Return the bytes that were reserved."""
        self._budget.release(self._reserved)
        self._reserved = 0

    def _reserve(self, count: int) -> None:
        if count > self._limit:
            message = f"the request has more bytes than the {self._limit} allowed; send fewer or smaller images"
            raise Problem(413, "REQUEST_TOO_LARGE", message)
        if count > self._reserved:
            self._budget.reserve(count - self._reserved)
            self._reserved = count


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
        if self._running >= MAX_REQUESTS:
            message = f"{MAX_REQUESTS} requests are under way; try again"
            await Problem(503, "SERVER_FULL", message, retry_after=RETRY_AFTER).response()(scope, receive, send)
            return
        self._running += 1
        body = Body(receive, self._max_body_bytes, self._budget)
        try:
            body.announce(Headers(scope=scope))
        except Problem as problem:
            await problem.response()(scope, receive, send)
        else:
            try:
                await self._app(scope, body.receive, _in_chunks(send))
            except SlowReader:
                log.warning("a client did not read its response within %g s and is disconnected", SEND_SECONDS)
        finally:
            body.release()
            self._running -= 1


def _in_chunks(send: Send) -> Send:
    """Return a `send` that passes bodies on in chunks. It raises SlowReader if one waits longer than SEND_SECONDS."""

    async def send_in_time(message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)
        except TimeoutError:
            raise SlowReader from None

    async def send_chunks(message: Message) -> None:
        body = message.get("body", b"")
        *starts, last = range(0, max(len(body), 1), CHUNK_BYTES)
        for start in starts:
            chunk = body[start : start + CHUNK_BYTES]
            await send_in_time({"type": "http.response.body", "body": chunk, "more_body": True})
        await send_in_time({**message, "body": body[last:]} if starts else message)

    return send_chunks
