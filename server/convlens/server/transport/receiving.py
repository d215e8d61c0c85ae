"""Reads every call's request, within the limits of its method and of the budget. Knows nothing of what requests say.

Each method is served as one with a stream of requests, which is the same on the wire: so a request is read here, and
not by gRPC before anybody is asked.
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
from grpc_status import rpc_status

from convlens.server import metrics
from convlens.server.auth.principal import tenant
from convlens.server.requests import LARGE, no_message
from convlens.server.status import Refusal, invalid
from convlens.server.transport.receive_budget import PLAIN_BYTES, ReceiveBudget, full, too_large
from convlens.v1 import job_pb2, visualization_pb2
from convlens.v1.conventions import REQUEST_BYTES_KEY, VERSION_KEY

PUBLIC_SHARE: Final = 16
"""Methods that need no token have this part of max_calls."""
_WITH_IMAGES: Final = frozenset(
    f"/{service.full_name}/{method.name}"
    for file in (visualization_pb2, job_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if "spec" in method.input_type.fields_by_name
)


_Guard = Callable[[Any], contextlib.AbstractAsyncContextManager[None]]
"""Of a call, by its context: see Receiving._refusing()."""


class NoRequest(Exception):
    """There is no request, or no more of a stream."""


class Calls:
    """Counts calls under way, which are bounded: in all, of a tenant, and those that need no token."""

    def __init__(self, most: int, tenant_share: float) -> None:
        self._most = most
        self._tenant = max(1, int(most * tenant_share))
        self._public = max(1, most // PUBLIC_SHARE)
        self._counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, tenant: str, *, public: bool, is_stream: bool) -> Iterator[None]:
        """One call, for the length of a `with`. Raises a Refusal when there are too many.

        Streams of methods that need no token are counted apart: who watches health keeps nobody from checking it.
        """
        bounds = {"max_calls": self._most}
        if public:
            bounds = {"max_public_streams" if is_stream else "max_public_calls": self._public}
        elif tenant:
            bounds[f"max_calls/{tenant}"] = self._tenant
        for name, most in bounds.items():
            if self._counts[name] >= most:
                raise full(name, f"{most} calls are under way, which is as many as are allowed")
        self._counts.update(bounds.keys())
        try:
            yield
        finally:
            self._counts.subtract(bounds.keys())
            for name in bounds:
                if not self._counts[name]:
                    del self._counts[name]


class Receiving(grpc.aio.ServerInterceptor):
    """The outermost interceptor: its handlers read requests and give them to the handlers of the others."""

    def __init__(self, version: str, budget: ReceiveBudget, calls: Calls, max_request_bytes: int) -> None:
        self._metadata = ((VERSION_KEY, version),)
        self._budget = budget
        self._calls = calls
        self._max_request_bytes = max_request_bytes
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="parse")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of any call, reading by itself."""
        handler: Any = await continuation(handler_call_details)
        return handler and self._reading(handler, handler_call_details.method)

    @functools.lru_cache(64)  # noqa: B019 - there is one Receiving; what the gate refuses is forgotten soon
    def _reading(self, handler: Any, method: str) -> Any:
        inner = handler.unary_unary or handler.unary_stream or handler.stream_stream
        deserialize = handler.request_deserializer or bytes
        refusing = functools.partial(self._refusing, method, not handler.unary_unary)

        async def requests(context: Any) -> Any:
            """What `inner` takes: the only request, or all of a stream."""
            if handler.stream_stream:
                return self._stream(method, deserialize, context)
            return await self._read(method, deserialize, context)

        if handler.unary_unary:
            answers = self._answering(refusing, inner, requests)
            return grpc.stream_unary_rpc_method_handler(answers, None, handler.response_serializer)
        kind = self._answering if inspect.iscoroutinefunction(inner) else self._streaming
        return grpc.stream_stream_rpc_method_handler(kind(refusing, inner, requests), None, handler.response_serializer)

    def _answering(self, refusing: _Guard, inner: Callable[..., Any], requests: Callable[[Any], Any]) -> Any:
        """For a method with one answer, or that writes its answers itself."""

        async def call(_requests: Any, context: Any) -> Any:
            async with refusing(context):
                return await inner(await requests(context), context)

        return call

    def _streaming(self, refusing: _Guard, inner: Callable[..., Any], requests: Callable[[Any], Any]) -> Any:
        """For a method that gives its answers one after another."""

        async def call(_requests: Any, context: Any) -> AsyncIterator[Any]:
            async with refusing(context), aclosing(inner(await requests(context), context)) as parts:
                async for part in parts:
                    yield part

        return call

    async def _stream(self, method: str, deserialize: Callable[[bytes], Any], context: Any) -> AsyncIterator[Any]:
        while True:
            await self._budget.wait_for_room(context.peer(), tenant())
            try:
                request = await self._read(method, deserialize, context, one=False)
            except NoRequest:
                return
            yield request
            del request  # or it would live until the next one is there

    @contextlib.asynccontextmanager
    async def _refusing(self, method: str, is_stream: bool, context: Any) -> AsyncIterator[None]:
        """A call, counted; one that is refused here ends with its Refusal as a google.rpc.Status."""
        try:
            with self._calls.one(tenant(), public=not method.startswith("/convlens."), is_stream=is_stream):
                yield
        except NoRequest:
            await self._abort(method, context, invalid("request", "is missing; allowed: one message"))
        except Refusal as refusal:
            await self._abort(method, context, refusal)

    async def _abort(self, method: str, context: Any, refusal: Refusal) -> None:
        with metrics.call(method.rpartition(".")[2]) as seen:
            seen.code = refusal.code.name
            status = rpc_status.to_status(refusal.status())
            await context.abort(status.code, status.details, (*self._metadata, *status.trailing_metadata))

    async def _read(self, method: str, deserialize: Callable[[bytes], Any], context: Any, *, one: bool = True) -> Any:
        """The next request; its bytes count as long as it lives. Raises a Refusal, or NoRequest."""
        most = self._max_request_bytes if method in _WITH_IMAGES else PLAIN_BYTES
        announced = _announced(context.invocation_metadata()) if one else 0
        if announced > most:
            raise too_large(announced, most)
        read = self._budget.begin(context.peer(), tenant(), most, announced, one=one)
        try:
            data = await _message(context, read.refused)
        finally:
            self._budget.end(read)
        if refusal := self._budget.refusal(read, len(data)):
            del data, read  # as below
            raise refusal
        try:
            if len(data) > LARGE:
                with self._budget.parsing(read, len(data)):
                    request = await asyncio.get_running_loop().run_in_executor(self._threads, deserialize, data)
            else:
                request = deserialize(data)
        except DecodeError:
            raise no_message(data) from None
        self._budget.hold(read, len(data), request)
        return request


async def _message(context: Any, refused: asyncio.Future[Any]) -> bytes:
    """The next message, whole. Raises what `refused` is given first, or NoRequest.

    gRPC's own reading goes on until its call has ended, since it writes to memory that must be there: it is not
    cancelled, neither by a refusal nor with its call.
    """
    reading = asyncio.ensure_future(context.read())

    def done(finished: asyncio.Future[Any]) -> None:
        has_failed = finished.cancelled() or finished.exception()  # so the call has ended
        if not refused.done():
            refused.set_result(grpc.aio.EOF if has_failed else finished.result())

    reading.add_done_callback(done)
    del reading  # a traceback keeps what its frames have
    message = await refused
    if message is grpc.aio.EOF:
        raise NoRequest
    return bytes(message)


def _announced(metadata: Any) -> int:
    """What the call says of its request's size; 0 when it says nothing that can be read."""
    value = next((value for name, value in metadata or () if name == REQUEST_BYTES_KEY), "")
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19 else 0
