"""Reads every call's request, within the limits of its method and of the receive budget.

Each method is served as one with a stream of requests, which is the same on the wire: so the request is read here, and
not by gRPC before any of this server's code runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from convlens.server import metrics
from convlens.server.auth.principal import current_tenant
from convlens.server.requests import PARSE_IN_THREAD_BYTES, malformed_request
from convlens.server.status import StatusError, abort, invalid_field
from convlens.server.transport.receive_budget import PLAIN_BYTES, ReceiveBudget, request_too_large, server_full
from convlens.v1 import job_pb2, visualization_pb2
from convlens.v1.conventions import REQUEST_BYTES_KEY, VERSION_KEY

PUBLIC_SHARE: Final = 16
"""Calls that need no token may be one in so many of max_calls."""
_WITH_IMAGES: Final = frozenset(
    f"/{service.full_name}/{method.name}"
    for file in (visualization_pb2, job_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if "spec" in method.input_type.fields_by_name
)

_Count = Callable[[], contextlib.AbstractContextManager[None]]
"""Counts a call for the duration of a `with`."""
_Reader = Callable[[Any], Awaitable[Any]]
"""Reads the request, or makes the iterator of a stream's, from the context of a call."""


class NoRequest(Exception):
    """The caller has sent no request, or no more on a stream."""


class CallLimiter:
    """Bounds the calls under way: in all, of each tenant, and those that need no token."""

    def __init__(self, max_calls: int, tenant_share: float) -> None:
        self._total = max_calls
        self._tenant = max(1, int(max_calls * tenant_share))
        self._public = max(1, max_calls // PUBLIC_SHARE)
        self._counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def count(self, tenant: str, *, is_public: bool, is_stream: bool) -> Iterator[None]:
        """Count a call for the duration of a `with`. StatusError when there are too many.

        Public streams have a bound of their own, so that watchers of health cannot block health checks.
        """
        bounds = {"max_calls": self._total}
        if is_public:
            bounds = {"max_public_streams" if is_stream else "max_public_calls": self._public}
        elif tenant:
            bounds[f"max_calls/{tenant}"] = self._tenant
        for name, limit in bounds.items():
            if self._counts[name] >= limit:
                raise server_full(name, f"{limit} calls are under way, which is as many as are allowed")
        self._counts.update(bounds.keys())
        try:
            yield
        finally:
            self._counts.subtract(bounds.keys())
            for name in bounds:
                if not self._counts[name]:
                    del self._counts[name]


class ReceiveInterceptor(grpc.aio.ServerInterceptor):
    """The outermost interceptor: its handlers read requests and pass them to the handlers of the others."""

    def __init__(self, version: str, budget: ReceiveBudget, limiter: CallLimiter, max_request_bytes: int) -> None:
        self._metadata = ((VERSION_KEY, version),)
        self._budget = budget
        self._limiter = limiter
        self._max_request_bytes = max_request_bytes
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="parse")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of any method."""
        handler: Any = await continuation(handler_call_details)
        return handler and self._wrap(handler, handler_call_details.method)

    @functools.lru_cache(64)  # noqa: B019 - there is one interceptor; handlers that reject a call are evicted soon
    def _wrap(self, handler: Any, method: str) -> Any:
        behavior = handler.unary_unary or handler.unary_stream or handler.stream_stream
        deserialize = handler.request_deserializer or bytes
        is_public = not method.startswith("/convlens.")

        async def read(context: Any) -> Any:
            """Return what `behavior` takes: the request, or an iterator of a stream's."""
            if handler.stream_stream:
                return self._read_stream(method, deserialize, context)
            return await self._read(method, deserialize, context)

        def count() -> contextlib.AbstractContextManager[None]:
            return self._limiter.count(current_tenant(), is_public=is_public, is_stream=not handler.unary_unary)

        if handler.unary_unary:
            call = self._wrap_coroutine(method, count, behavior, read)
            return grpc.stream_unary_rpc_method_handler(call, None, handler.response_serializer)
        wrap = self._wrap_coroutine if inspect.iscoroutinefunction(behavior) else self._wrap_generator
        call = wrap(method, count, behavior, read)
        return grpc.stream_stream_rpc_method_handler(call, None, handler.response_serializer)

    def _wrap_coroutine(self, method: str, count: _Count, behavior: Callable[..., Any], read: _Reader) -> Any:
        """Wrap a method that returns one response, or writes its responses to the context."""

        async def call(_requests: Any, context: Any) -> Any:
            try:
                with count():
                    return await behavior(await read(context), context)
            except (NoRequest, StatusError) as error:
                rejection = _to_rejection(error)
            return await self._abort(method, context, rejection)

        return call

    def _wrap_generator(self, method: str, count: _Count, behavior: Callable[..., Any], read: _Reader) -> Any:
        """Wrap a method that yields its responses."""

        async def call(_requests: Any, context: Any) -> AsyncIterator[Any]:
            try:
                with count():
                    async with aclosing(behavior(await read(context), context)) as responses:
                        async for response in responses:
                            yield response
                            del response  # frees it before the next one is made
            except (NoRequest, StatusError) as error:
                rejection = _to_rejection(error)
            else:
                return
            await self._abort(method, context, rejection)

        return call

    async def _read_stream(self, method: str, deserialize: Callable[[bytes], Any], context: Any) -> AsyncIterator[Any]:
        while True:
            await self._budget.wait_for_capacity(context.peer(), current_tenant())
            try:
                request = await self._read(method, deserialize, context, is_unary=False)
            except NoRequest:
                return
            yield request
            del request  # else it lives until the next one comes

    async def _abort(self, method: str, context: Any, error: StatusError) -> None:
        with metrics.observe_call(method.rpartition(".")[2]) as outcome:
            outcome.code = error.code.name
            await abort(context, error, self._metadata)

    async def _read(
        self, method: str, deserialize: Callable[[bytes], Any], context: Any, *, is_unary: bool = True
    ) -> Any:
        """Return the next request. Its bytes count as long as it lives. Raises StatusError or NoRequest."""
        limit = self._max_request_bytes if method in _WITH_IMAGES else PLAIN_BYTES
        announced = _announced_size(context.invocation_metadata()) if is_unary else 0
        if announced > limit:
            raise request_too_large(announced, limit)
        read = self._budget.start_read(context.peer(), current_tenant(), limit, announced, is_unary=is_unary)
        try:
            data = await _read_message(context, read.outcome)
        finally:
            self._budget.end_read(read)
        if error := self._budget.check(read, len(data)):
            del data, read  # which the traceback would keep in memory
            raise error
        try:
            if len(data) > PARSE_IN_THREAD_BYTES:
                with self._budget.parsing(read, len(data)):
                    request = await asyncio.get_running_loop().run_in_executor(self._threads, deserialize, data)
            else:
                request = deserialize(data)
        except DecodeError:
            raise malformed_request(data) from None
        self._budget.hold(read, len(data), request)
        return request


def _to_rejection(error: NoRequest | StatusError) -> StatusError:
    """Return the status that a call ends with, without the frames that hold its request."""
    if isinstance(error, NoRequest):
        return invalid_field("request", "is missing; allowed: one message")
    return error.without_traceback()


async def _read_message(context: Any, outcome: asyncio.Future[Any]) -> bytes:
    """Return the next message, complete. Raises NoRequest, or what the budget sets in `outcome` first.

    gRPC's read writes to memory of its own until the call has ended, so it is never cancelled, neither by a rejection
    nor with its call.
    """
    reading = asyncio.ensure_future(context.read())

    def on_done(finished: asyncio.Future[Any]) -> None:
        has_failed = finished.cancelled() or finished.exception()  # the call has ended
        if not outcome.done():
            outcome.set_result(grpc.aio.EOF if has_failed else finished.result())

    reading.add_done_callback(on_done)
    del reading  # a traceback keeps the variables of its frames
    message = await outcome
    if message is grpc.aio.EOF:
        raise NoRequest
    return bytes(message)


def _announced_size(metadata: Any) -> int:
    """Return the size that the metadata announce; 0 when they announce none, or no number."""
    value = next((value for name, value in metadata or () if name == REQUEST_BYTES_KEY), "")
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19 else 0
