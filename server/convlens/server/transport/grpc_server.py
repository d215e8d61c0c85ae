"""Makes gRPC servers that survive a call whose path is not UTF-8.

grpcio decodes the path of every call of an unregistered method outside of any exception handler, and shuts the server
down when that fails: anybody could stop it by one request, without a token. The methods of services are registered with
gRPC's core, so the remaining calls are of unknown methods, and are rejected here without decoding their paths.
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
    """grpcio's server, which dispatches calls of registered methods only."""

    async def _request_call(self) -> Any:
        """Reject each call of an unregistered method; never return one."""
        rejecting: set[asyncio.Task[None]] = set()
        while True:
            task = asyncio.create_task(_reject(await super()._request_call()))
            rejecting.add(task)
            task.add_done_callback(rejecting.discard)


async def _reject(state: Any) -> None:
    """Abort a call with UNIMPLEMENTED."""
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
    """Make a grpc.aio server, for services that are registered by their generated functions."""
    server: Any = grpc.aio.server(interceptors=interceptors, options=options)
    server._server = _AioServer(  # noqa: SLF001
        cygrpc.get_working_loop(), None, (), tuple(interceptors), tuple(options), None
    )
    typed: grpc.aio.Server = server
    return typed
