"""Runs every call: identifies its caller, counts it, reads its request, runs its method, ends it with a status.

Each method is served as one with a stream of requests, which is the same on the wire: so the request is read here, and
not by gRPC before any of this server's code runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from convlens.server import metrics
from convlens.server.auth.authenticator import Authenticator
from convlens.server.auth.principal import current_tenant, set_caller
from convlens.server.requests import PARSE_IN_THREAD_BYTES, make_parser, malformed_request
from convlens.server.status import to_status_error
from convlens.server.transport.receive_budget import PLAIN_BYTES, ReceiveBudget, request_too_large, server_full
from convlens.v1.conventions import REQUEST_BYTES_KEY, VERSION_KEY
from convlens.v1.status_error import SpecError, StatusError

PUBLIC_SHARE: Final = 16
"""Calls that need no token may be one in so many of max_calls."""


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


class _Method:
    """A method of a service, and how its calls are to be run."""

    def __init__(self, path: str, handler: Any, max_bytes: int) -> None:
        self.path = path
        self.name = path.rpartition(".")[2]
        """Service/Method."""
        self.is_public = not path.startswith("/convlens.")
        """Whether it is of health or reflection, which need no token."""
        self.errors = StatusError if self.is_public else Exception
        """What it may raise."""
        self.behavior = handler.unary_unary or handler.unary_stream or handler.stream_stream
        self.takes_stream = handler.stream_stream is not None
        self.is_stream = handler.unary_unary is None
        self.limit = PLAIN_BYTES
        """Bytes of a request."""
        self.parse = handler.request_deserializer
        if not self.is_public:
            message = self.parse.__self__
            self.parse = make_parser(message)
            self.limit = max_bytes if "spec" in message.DESCRIPTOR.fields_by_name else PLAIN_BYTES

    def observe(self) -> contextlib.AbstractContextManager[metrics.CallOutcome]:
        """Count and time a call of this server's own services."""
        return contextlib.nullcontext(metrics.CallOutcome()) if self.is_public else metrics.observe_call(self.name)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Runs the calls of all services. A method gets a parsed request; an exception that it raises becomes a status."""

    def __init__(
        self, version: str, authenticator: Authenticator, budget: ReceiveBudget, limiter: CallLimiter, max_bytes: int
    ) -> None:
        """`max_bytes` is the limit of a request with images."""
        self._metadata = ((VERSION_KEY, version),)
        self._authenticator = authenticator
        self._budget = budget
        self._limiter = limiter
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="parse")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of any method."""
        handler: Any = await continuation(handler_call_details)
        return handler and self._wrap(handler, handler_call_details.method)

    @functools.lru_cache(64)  # noqa: B019 - there is one interceptor
    def _wrap(self, handler: Any, path: str) -> Any:
        method = _Method(path, handler, self._max_bytes)
        if method.is_stream:
            return grpc.stream_stream_rpc_method_handler(self._wrap_stream(method), None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(self._wrap_unary(method), None, handler.response_serializer)

    def _wrap_unary(self, method: _Method) -> Callable[..., Awaitable[Any]]:
        """Wrap a method that returns its response."""

        async def call(_requests: Any, context: Any) -> Any:
            context.set_trailing_metadata(self._metadata)
            with method.observe() as outcome:
                try:
                    with self._admit(method, context):
                        response = await method.behavior(await self._request(method, context), context)
                except method.errors as error:
                    rejection = to_status_error(error).without_traceback()
                else:
                    outcome.code = "OK"
                    return response
                return await self._abort(context, rejection, outcome)

        return call

    def _wrap_stream(self, method: _Method) -> Callable[..., AsyncIterator[Any]]:
        """Wrap a method that yields its responses."""

        async def call(_requests: Any, context: Any) -> AsyncIterator[Any]:
            context.set_trailing_metadata(self._metadata)
            with method.observe() as outcome:
                try:
                    with self._admit(method, context):
                        async with aclosing(method.behavior(await self._request(method, context), context)) as parts:
                            async for response in parts:
                                yield response
                                del response  # frees it before the next one is made
                except method.errors as error:
                    rejection = to_status_error(error).without_traceback()
                else:
                    outcome.code = "OK"
                    return
                await self._abort(context, rejection, outcome)

        return call

    def _admit(self, method: _Method, context: Any) -> contextlib.AbstractContextManager[None]:
        """Identify the caller, and count the call for the duration of a `with`. StatusError where it is rejected."""
        if not method.is_public:
            set_caller(self._authenticator.authenticate(method.path, context))
        return self._limiter.count(current_tenant(), is_public=method.is_public, is_stream=method.is_stream)

    async def _abort(self, context: Any, error: StatusError, outcome: metrics.CallOutcome) -> None:
        """End a call with a status.

        Call it outside of any `except`, with an error without a traceback: gRPC keeps the exception that this raises in
        a reference cycle, and the frames with the request would live until garbage is collected.
        """
        outcome.code = error.code.name
        status = rpc_status.to_status(error.to_status())
        await context.abort(status.code, status.details, (*self._metadata, *status.trailing_metadata))

    # --- requests ---

    async def _request(self, method: _Method, context: Any) -> Any:
        """Return what the method takes: its request, or an iterator of a stream's."""
        if method.takes_stream:
            return self._read_stream(method, context)
        return await self._read(method, context, is_unary=True)

    async def _read_stream(self, method: _Method, context: Any) -> AsyncIterator[Any]:
        while (request := await self._read(method, context, is_unary=False)) is not None:
            yield request

    async def _read(self, method: _Method, context: Any, *, is_unary: bool) -> Any:
        """Return the next request, whose bytes count as long as it lives; None at the end of a stream."""
        announced = _announced_size(context.invocation_metadata()) if is_unary else 0
        if announced > method.limit:
            raise request_too_large(announced, method.limit)
        read = self._budget.start_read(context.peer(), current_tenant(), method.limit, announced, is_unary=is_unary)
        try:
            data = await _read_message(context, read.outcome)
        finally:
            self._budget.end_read(read)
        if data is None:
            if is_unary:
                raise SpecError("request", "is missing; allowed: one message")
            return None
        if error := self._budget.check(read, len(data)):
            del data, read  # which the traceback would keep in memory
            raise error
        try:
            if len(data) > PARSE_IN_THREAD_BYTES:
                with self._budget.parsing(read, len(data)):
                    request = await asyncio.get_running_loop().run_in_executor(self._threads, method.parse, data)
            else:
                request = method.parse(data)
        except DecodeError:
            raise malformed_request(data) from None
        self._budget.hold(read, len(data), request)
        return request


async def _read_message(context: Any, outcome: asyncio.Future[Any]) -> bytes | None:
    """Return the next message, complete; None at the end. Raises what the budget sets in `outcome` first.

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
    return None if message is grpc.aio.EOF else bytes(message)


def _announced_size(metadata: Any) -> int:
    """Return the size that the metadata announce; 0 when they announce none, or no number."""
    value = next((value for name, value in metadata or () if name == REQUEST_BYTES_KEY), "")
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19 else 0
