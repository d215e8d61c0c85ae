"""gRPC's server with a guard: one call whose path is no UTF-8 would end it.

grpcio decodes the path of every call that core does not know by name outside of any exception handler, and shuts the
server down when that fails: anybody could end it by one request, before a token is asked for. Services are registered
with core by the names of their methods, so what is left are calls of methods that there are not: they are refused here,
undecoded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # grpcio comes without types

log = logging.getLogger(__name__)


class _AioServer(cygrpc.AioServer):  # type: ignore[misc]
    """grpcio's server, to which no call comes that is not of a registered method."""

    async def _request_call(self) -> Any:
        """Refuses each call that comes; never returns one."""
        refusing: set[asyncio.Task[None]] = set()
        while True:
            task = asyncio.create_task(_refuse(await super()._request_call()))
            refusing.add(task)
            task.add_done_callback(refusing.discard)


async def _refuse(state: Any) -> None:
    """Answers a call UNIMPLEMENTED, and lets go of it once its caller has."""
    loop = asyncio.get_running_loop()
    context = cygrpc._ServicerContext(state, None, None, loop)  # noqa: SLF001

    async def abort() -> None:
        try:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        except (cygrpc.AbortError, cygrpc.UsageError, cygrpc.ExecuteBatchError) as error:
            log.debug("method unknown: %s", error)

    await cygrpc._handle_cancellation_from_core(asyncio.create_task(abort()), state, loop)  # noqa: SLF001


def make_server(
    options: Sequence[tuple[str, int]], interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
) -> grpc.aio.Server:
    """A server of grpc.aio, for services that are registered by their generated functions."""
    server: Any = grpc.aio.server(interceptors=interceptors, options=options)
    server._server = _AioServer(  # noqa: SLF001
        cygrpc.get_working_loop(), None, (), tuple(interceptors), tuple(options), None
    )
    made: grpc.aio.Server = server
    return made
