"""Calls of one client, repeated where that may help: unary ones, and those that return a result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from copy import copy
from types import TracebackType
from typing import Any, Self

import grpc

from convlens.client.async_transport import AsyncCallGroup, AsyncSession, AsyncTransport
from convlens.client.connection import Connection, token_metadata
from convlens.client.errors import PermissionDenied, from_rpc
from convlens.client.job_status import JobState, JobStatus
from convlens.client.progress import Progress, ProgressCallback
from convlens.client.request import JobRequest, job_time_limit
from convlens.client.response import ResponseReader
from convlens.client.result import Result
from convlens.client.retry import RetryPolicy
from convlens.client.stubs import Stubs
from convlens.client.timeouts import DEFAULT_TIMEOUT
from convlens.v1 import job_pb2, model_pb2


class AsyncAttempts:
    """The retry loop of every call: `async for attempt in attempts: with attempt as seconds_left: …`.

    A grpc.RpcError in the `with` leads to the next attempt after the delay that the policy sets, or is raised as the
    typed error that the policy makes of it. An attempt without an error is the last.
    """

    def __init__(self, session: AsyncSession, calls: AsyncCallGroup, policy: RetryPolicy) -> None:
        self._session = session
        self._calls = calls
        self._policy = policy
        self._delay: float | None = 0.0
        """Seconds before the next attempt; None for no further attempt."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Self:
        if self._delay is None:
            raise StopAsyncIteration
        if self._delay > 0:
            await self._calls.pause(self._delay)
        self._delay = None
        return self

    def __enter__(self) -> float | None:
        return self._policy.remaining()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, grpc.RpcError):
            return False
        self._delay = self._policy.delay_after(error, self._session.is_connected)
        return True


class AsyncCalls:
    """The calls of one client and of its jobs."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.connection = connection
        self.timeout = timeout
        """Seconds for each call, unless the caller gives another number."""
        self.transport = AsyncTransport(connection)
        self.token = connection.metadata
        """The metadata that every call has."""
        self.reserve: Callable[[int], object] | None = None
        """Called with the bytes of each result before they are received."""
        self._longest_job: float | None = None
        """Seconds that the server lets a job take; None until it is known."""

    def with_token(self, token: str | None, reserve: Callable[[int], object] | None) -> AsyncCalls:
        """Return these calls with another token, over the same connection. InvalidArgument as of token_metadata()."""
        calls = copy(self)
        calls.reserve = reserve
        calls.token, calls._longest_job = token_metadata(token), None
        return calls

    async def unary(self, method: Callable[[Stubs], Any], request: Any, request_id: str = "") -> Any:
        """Make a unary call and return its response."""
        session = await self.transport.session()
        policy = RetryPolicy(self.connection, self.timeout, request_id)
        async for attempt in AsyncAttempts(session, session.calls, policy):
            with attempt as seconds:
                response = await session.calls.unary(method(session.stubs), request, seconds, self.token)
        return response

    async def visualize(
        self,
        request: JobRequest,
        timeout: float,
        calls: AsyncCallGroup | None = None,
        report: ProgressCallback | None = None,
    ) -> Result:
        """Run a job and return its result, as one of `calls`; call `report` at each step.

        A result of one image comes in one message if it fits; all others, those that a server refuses to send so, and
        those of a job whose progress is reported, come as a stream.
        """
        session = await self.transport.session()
        calls = calls or session.calls
        reader = ResponseReader(request.images, request.request_id, reserve=self.reserve)
        policy = RetryPolicy(self.connection, timeout, request.request_id)
        is_unary = len(request.images) == 1 and not request.is_result_large and report is None
        if report:
            report(Progress(0, len(request.images)))
        async for attempt in AsyncAttempts(session, calls, policy):
            with attempt as seconds:
                if is_unary:
                    method = session.stubs.visualizations.VisualizeUnary
                    try:
                        reader.add_header((await calls.unary(method, request.serialized, seconds, self.token)).header)
                        continue
                    except grpc.RpcError as error:
                        if not self._needs_stream(error):
                            raise
                        is_unary = False
                try:
                    await self._read(session, calls, reader, request, policy.remaining(), report)
                except grpc.RpcError as error:
                    if not (reader.has_header and self._is_gone(error)):
                        raise
                    reader = ResponseReader(request.images, request.request_id, reserve=self.reserve)
                    await self._read(session, calls, reader, request, policy.remaining(), report)
        result = reader.result()
        if report:
            report(Progress(len(request.images), len(request.images), JobState.SUCCEEDED))
        return result

    async def read_result(self, job_id: str, request: JobRequest | None, timeout: float) -> Result:
        """Return the result of a job that has ended; `request` is the one it was submitted by, if it is known."""
        session = await self.transport.session()
        images, request_id = (request.images, request.request_id) if request else ((), "")
        reader = ResponseReader(images, request_id, job_id, self.reserve)
        policy = RetryPolicy(self.connection, timeout, request_id)
        async for attempt in AsyncAttempts(session, session.calls, policy):
            with attempt as seconds:
                await self._read(session, session.calls, reader, None, seconds)
        return reader.result()

    async def _read(
        self,
        session: AsyncSession,
        calls: AsyncCallGroup,
        reader: ResponseReader,
        request: JobRequest | None,
        seconds: float | None,
        report: ProgressCallback | None = None,
    ) -> None:
        """Read the response to `request`, or, once the job is known to be done, the rest of its result."""
        method: Any = session.stubs.visualizations.Visualize
        message: Any = request.serialized if request else None
        if request is None or reader.has_header:
            method = session.stubs.jobs.ReadJobResult
            message = job_pb2.ReadJobResultRequest(id=reader.job_id, offset=reader.offset)
        async with calls.stream(method, message, seconds, self.token) as parts:
            async for part in parts:
                self.connection.mark_reached()
                reader.feed(part)
                if report and part.WhichOneof("part") == "job":
                    await self._report(session, calls, part.job.id, seconds, report)

    async def _report(
        self,
        session: AsyncSession,
        calls: AsyncCallGroup,
        job_id: str,
        seconds: float | None,
        report: ProgressCallback,
    ) -> None:
        """Report the progress of a job until it has ended, or until the server ends the call for it."""
        watch, request = session.stubs.jobs.WatchJob, job_pb2.WatchJobRequest(id=job_id)
        with contextlib.suppress(grpc.RpcError):  # the call for the result meets the same error if it matters
            async with calls.stream(watch, request, seconds, self.token) as changes:
                async for change in changes:
                    status = JobStatus.from_message(change.job)
                    if not status.state.is_final:
                        report(Progress.from_status(status))

    def _needs_stream(self, error: grpc.RpcError) -> bool:
        """Return True if the result does not fit one message, or the server is too old for VisualizeUnary."""
        reason = from_rpc(error, self.connection.target).reason
        return reason == "RESULT_TOO_LARGE" or error.code() is grpc.StatusCode.UNIMPLEMENTED

    def _is_gone(self, error: grpc.RpcError) -> bool:
        """Return True if the result that is being read was evicted, as may happen once its stream has broken."""
        return from_rpc(error, self.connection.target).reason in {"RESULT_EXPIRED", "JOB_UNKNOWN"}

    async def job_time_limit(self, seconds: float) -> float | None:
        """Return the time limit to send with a job whose caller waits `seconds`; None for the server's default."""
        if seconds > DEFAULT_TIMEOUT and self._longest_job is None:
            try:
                info = await self.unary(lambda stubs: stubs.models.GetServerInfo, model_pb2.GetServerInfoRequest())
                self._longest_job = info.limits.max_timeout.ToNanoseconds() / 1e9
            except PermissionDenied:
                self._longest_job = 0.0  # a token that may not read leaves it at the server's default
        return job_time_limit(seconds, self._longest_job or 0.0)
