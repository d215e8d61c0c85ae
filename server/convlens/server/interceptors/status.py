"""Ends every call of convlens.v1 with the server's version, and every exception of a service as a google.rpc.Status."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from convlens.server import metrics
from convlens.server.requests import make_parser
from convlens.server.status import StatusError, abort, to_status_error
from convlens.v1.conventions import VERSION_KEY


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Lets services raise exceptions, and aborts their calls with the status of each."""

    def __init__(self, version: str) -> None:
        self._metadata = ((VERSION_KEY, version),)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of a convlens.v1 method; leave health and reflection as they are."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/convlens."):
            return handler
        return self._wrap(handler, handler_call_details.method.rpartition(".")[2])

    @functools.lru_cache(64)  # noqa: B019 - there is one interceptor; handlers that reject a call are evicted soon
    def _wrap(self, handler: Any, method: str) -> Any:
        from_string = handler.request_deserializer  # None where AuthInterceptor rejects the call unread
        codecs = (from_string and make_parser(from_string.__self__), handler.response_serializer)
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._wrap_stream(handler.stream_stream, method), *codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._wrap_stream(handler.unary_stream, method), *codecs)
        return grpc.unary_unary_rpc_method_handler(self._wrap_unary(handler.unary_unary, method), *codecs)

    def _wrap_unary(self, behavior: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            context.set_trailing_metadata(self._metadata)
            with metrics.observe_call(method) as outcome:
                try:
                    running = behavior(request, context)
                    del request  # frees its images once they are stored
                    response = await running
                except Exception as error:  # noqa: BLE001 - mapped to a status
                    rejection = to_status_error(error).without_traceback()
                else:
                    outcome.code = "OK"
                    return response
                return await self._abort(context, rejection, outcome)

        return call

    def _wrap_stream(
        self, behavior: Callable[..., AsyncGenerator[Any]], method: str
    ) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            context.set_trailing_metadata(self._metadata)
            with metrics.observe_call(method) as outcome:
                try:
                    running = behavior(request, context)
                    del request  # as above
                    async with aclosing(running) as responses:
                        async for response in responses:
                            yield response
                            del response  # frees it before the next one is made
                except Exception as error:  # noqa: BLE001 - as above
                    rejection = to_status_error(error).without_traceback()
                else:
                    outcome.code = "OK"
                    return
                await self._abort(context, rejection, outcome)

        return call

    async def _abort(self, context: Any, error: StatusError, outcome: metrics.CallOutcome) -> None:
        outcome.code = error.code.name
        await abort(context, error, self._metadata)
