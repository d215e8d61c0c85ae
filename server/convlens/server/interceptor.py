"""Around every call: the server's version goes out last, and every exception leaves as a google.rpc.Status."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import grpc
from grpc_status import rpc_status

from convlens.server import metrics
from convlens.server.errors import refusal_of
from convlens.server.requests import LARGE, reader

Read = Callable[[bytes], Any]
"""What makes a request of its bytes."""


class Boundary(grpc.aio.ServerInterceptor):
    """The boundary between the services, which raise, and gRPC, which aborts."""

    def __init__(self, version: str) -> None:
        self._metadata = (("convlens-version", version),)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="parse")

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
        read = reader(from_string.__self__) if from_string else lambda data: data
        codecs = (None, _serializer(handler.response_serializer))
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._streaming(handler.stream_stream, read, method), *codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, read, method), *codecs)
        return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, read, method), *codecs)

    def _unary(self, inner: Callable[..., Awaitable[Any]], read: Read, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            context.set_trailing_metadata(self._metadata)
            with metrics.call(method) as seen:
                try:
                    answer = await inner(await self._parsed(read, request), context)
                except Exception as error:  # noqa: BLE001 - told to the caller, and logged where unforeseen
                    return await self._abort(context, error, seen)
                seen.code = "OK"
                return answer

        return call

    def _streaming(
        self, inner: Callable[..., AsyncGenerator[Any]], read: Read, method: str
    ) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            context.set_trailing_metadata(self._metadata)
            with metrics.call(method) as seen:
                try:
                    is_stream = isinstance(request, AsyncIterator)
                    parsed = self._each_parsed(read, request) if is_stream else await self._parsed(read, request)
                    async with aclosing(inner(parsed, context)) as parts:
                        async for part in parts:
                            yield part
                    seen.code = "OK"
                except Exception as error:  # noqa: BLE001 - as above
                    await self._abort(context, error, seen)

        return call

    async def _parsed(self, read: Read, data: bytes) -> Any:
        """A request, read; a large one in a thread, for other calls to go on meanwhile."""
        if len(data) > LARGE:
            return await asyncio.get_running_loop().run_in_executor(self._threads, read, data)
        return read(data)

    async def _each_parsed(self, read: Read, requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for data in requests:
            yield await self._parsed(read, data)

    async def _abort(self, context: Any, error: Exception, seen: metrics.Call) -> None:
        refusal = refusal_of(error)
        seen.code = refusal.code.name
        status = rpc_status.to_status(refusal.status())
        await context.abort(status.code, status.details, (*self._metadata, *status.trailing_metadata))


def _serializer(inner: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """What is serialized already stays as it is."""
    return lambda message: message if isinstance(message, bytes) else inner(message)
