"""VisualizationService: submits a job, waits for it and sends its result in the same call."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final, TypeVar

import grpc

from convlens.server import responses
from convlens.server.auth.principal import current_caller
from convlens.server.job_gateway import JobGateway
from convlens.server.requests import JobRequest
from convlens.server.responses import ResultReader
from convlens.server.services import Context
from convlens.server.status import ended_without_result
from convlens.server.transport.send_budget import CallSendBudget, SendBudget, UnarySendBudget
from convlens.server.validation import Submission
from convlens.server.waiters import Waiters
from convlens.v1.reasons import Reason
from convlens.v1.request.fields import canonical_request_id
from convlens.v1.visualization_pb2 import VisualizeResponse, VisualizeUnaryResponse
from convlens.v1.visualization_pb2_grpc import VisualizationServiceServicer

FAST_SECONDS: Final = 0.2
"""A job that ends within this time is not sent as a Job before its result."""

R = TypeVar("R")


class VisualizationService(VisualizationServiceServicer):
    """Maps in one call. A call that goes away leaves its job, and the last one to leave cancels it."""

    def __init__(
        self,
        gateway: JobGateway,
        waiters: Waiters,
        results: ResultReader,
        send_budget: SendBudget,
    ) -> None:
        self._gateway = gateway
        self._waiters = waiters
        self._results = results
        self._send_budget = send_budget

    async def Visualize(  # type: ignore[override]  # noqa: N802 - the wire's name
        self, request: JobRequest, context: Context
    ) -> AsyncIterator[VisualizeResponse]:
        """Answer one request by a stream: the job unless it ends at once, the header, the chunks."""
        answer = self._answer(request, context, CallSendBudget(self._send_budget, context), VisualizeResponse)
        del request  # frees its images once they are stored
        async with contextlib.aclosing(answer) as parts:
            async for response in parts:
                yield response
                del response  # frees it before the next one is made

    async def VisualizeUnary(self, request: JobRequest, context: Context) -> VisualizeUnaryResponse:  # type: ignore[override]  # noqa: N802
        """Answer one request by one message. RESULT_TOO_LARGE where the result would not fit."""
        sending = UnarySendBudget(self._send_budget, context)
        answer = self._answer(request, context, sending, VisualizeUnaryResponse, is_unary=True)
        del request  # as above
        async with contextlib.aclosing(answer) as parts:
            (response,) = [response async for response in parts]
        return response

    async def _answer(
        self,
        request: JobRequest,
        context: Context,
        sending: CallSendBudget,
        new_response: Callable[..., R],
        *,
        is_unary: bool = False,
    ) -> AsyncGenerator[R]:
        """Submit a job, wait for it, yield the responses."""
        request_id = canonical_request_id(request.message.request_id)
        tenant, seconds = current_caller().tenant, context.time_remaining()
        submission = Submission(request_id, tenant, time_remaining=seconds, is_unary=is_unary)
        with self._waiters.subscribe(submission.job_id) as subscription:
            joining = await self._gateway.submit(request, submission)
            del request
            async with self._gateway.joined(joining) as record:
                if not (record.state.final or is_unary) and not await subscription.ends_within(FAST_SECONDS):
                    yield new_response(job=responses.job(record))
                ended = await self._waiters.wait_until_final(record, subscription)
                if ended.failure and ended.failure.reason == Reason.MODEL_CHANGED:
                    raise ended_without_result(ended, grpc.StatusCode.UNAVAILABLE)  # the same call succeeds if repeated
                parts: Any = self._results.responses(ended, sending, new_response)
                async with contextlib.aclosing(parts):
                    async for response in parts:
                        yield response
                        del response
