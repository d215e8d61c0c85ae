"""Around every call: the server's version goes out last, and every exception leaves as a google.rpc.Status."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from grpc_status import rpc_status

from convlens.server import metrics
from convlens.server.requests import reader
from convlens.server.status import refusal_of
from convlens.v1.conventions import VERSION_KEY


class Boundary(grpc.aio.ServerInterceptor):
    """The boundary between the services, which raise, and gRPC, which aborts."""

    def __init__(self, version: str) -> None:
        self._metadata = ((VERSION_KEY, version),)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of a convlens call; health and reflection are left as they are."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/convlens."):
            return handler
        return self._wrapped(handler, handler_call_details.method.rpartition(".")[2])

    @functools.lru_cache(64)  # noqa: B019 - there is one Boundary; what the gate refuses is forgotten soon
    def _wrapped(self, handler: Any, method: str) -> Any:
        from_string = handler.request_deserializer  # none where the gate refuses, whatever the request is
        codecs = (from_string and reader(from_string.__self__), _serializer(handler.response_serializer))
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._streaming(handler.stream_stream, method), *codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, method), *codecs)
        return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, method), *codecs)

    def _unary(self, inner: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            context.set_trailing_metadata(self._metadata)
            with metrics.call(method) as seen:
                try:
                    answering = inner(request, context)
                    del request  # its images are needed only until they are stored
                    answer = await answering
                except Exception as error:  # noqa: BLE001 - told to the caller, and logged where unforeseen
                    return await self._abort(context, error, seen)
                seen.code = "OK"
                return answer

        return call

    def _streaming(self, inner: Callable[..., AsyncGenerator[Any]], method: str) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            context.set_trailing_metadata(self._metadata)
            with metrics.call(method) as seen:
                try:
                    answering = inner(request, context)
                    del request  # as above
                    async with aclosing(answering) as parts:
                        async for part in parts:
                            yield part
                    seen.code = "OK"
                except Exception as error:  # noqa: BLE001 - as above
                    await self._abort(context, error, seen)

        return call

    async def _abort(self, context: Any, error: Exception, seen: metrics.Call) -> None:
        refusal = refusal_of(error)
        seen.code = refusal.code.name
        status = rpc_status.to_status(refusal.status())
        await context.abort(status.code, status.details, (*self._metadata, *status.trailing_metadata))


def _serializer(inner: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """What is serialized already stays as it is."""
    return lambda message: message if isinstance(message, bytes) else inner(message)
