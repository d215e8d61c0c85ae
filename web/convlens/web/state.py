"""What the requests of a gateway share: the client of its server, and the bytes that they may hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request

from convlens.client import AsyncClient
from convlens.web.limits import Reservation
from convlens.web.problems import CLIENT_CLOSED, Problem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the requests of a gateway share."""

    client: AsyncClient
    address: str
    """HOST:PORT of the server that the client calls."""


def gateway_of(request: Request) -> Gateway:
    """Return the gateway that a request is for."""
    return cast("Gateway", request.app.state.gateway)


def reservation_of(request: Request) -> Reservation:
    """Return the bytes that a request holds."""
    return cast("Reservation", request.state.reservation)


def client_of(request: Request) -> AsyncClient:
    """Return a client that calls with the request's own token, and reserves results before it receives them."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise Problem(401, "TOKEN_MISSING", "the gateway takes tokens as `Authorization: Bearer TOKEN`")
    client = gateway_of(request).client
    return client.with_token(token.strip() or None, reserve=reservation_of(request).hold_result)


Client = Annotated[AsyncClient, Depends(client_of)]


async def while_connected(request: Request, call: Awaitable[T]) -> T:
    """Await a call, and cancel it if the caller of the request disconnects meanwhile. Its body must have been read."""
    task = asyncio.ensure_future(call)
    disconnected = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            disconnected.result()  # raises what is wrong with a body that is not read to its end
            raise Problem(CLIENT_CLOSED, "CANCELLED", "the caller disconnected")
        return await task
    finally:
        task.cancel()
        disconnected.cancel()
        await asyncio.gather(task, disconnected, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    message: Any = {}
    while message.get("type") != "http.disconnect":
        message = await request.receive()
