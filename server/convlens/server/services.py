"""The three services of convlens.v1. Each call validates, does one thing with the front, and answers."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from importlib import metadata
from typing import Any, Final

from convlens.jobs.queue.ledger import JobLive
from convlens.jobs.queue.record import Record, State
from convlens.server import responses, results
from convlens.server.auth.principal import caller
from convlens.server.front import Front
from convlens.server.requests import JobRequest
from convlens.server.status import MODEL_CHANGED, invalid, model_changed, unknown_job
from convlens.server.stream import Stream, Turn
from convlens.server.transport.send_budget import Sending, SendingOne
from convlens.server.validation import (
    Call,
    canonical_request_id,
    default_model,
    find_model,
    job_id,
    result_positions,
    valid_job_id,
)
from convlens.v1 import (
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    visualization_pb2,
    visualization_pb2_grpc,
)

AT_ONCE_SECONDS: Final = 0.2
"""A job that ends this soon is not announced before its result."""
LISTED_BYTES: Final = 500
"""Of one job in a page, about."""
VERSION: Final = metadata.version("convlens-server")
Context = Any


class Visualizations(visualization_pb2_grpc.VisualizationServiceServicer):
    """Maps in one call."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def Visualize(  # type: ignore[override]  # noqa: N802 - the wire's name; bytes are serialized messages
        self, request: JobRequest, context: Context
    ) -> AsyncIterator[visualization_pb2.VisualizeResponse | bytes]:
        """One job, waited for."""
        answering = self._answer(request, context, Sending(self._front.sending, context))
        del request  # its images are needed only until they are stored
        async with contextlib.aclosing(answering) as parts:
            async for name, part in parts:
                if isinstance(part, job_pb2.Job):
                    yield visualization_pb2.VisualizeResponse(job=part)
                else:
                    yield _VISUALIZE[name](part)

    async def VisualizeUnary(self, request: JobRequest, context: Context) -> bytes:  # type: ignore[override]  # noqa: N802
        """One job, waited for, in one message."""
        answer = b""
        answering = self._answer(request, context, SendingOne(self._front.sending, context), whole=True)
        del request  # as above
        async with contextlib.aclosing(answering) as parts:
            async for _, part in parts:
                if not isinstance(part, job_pb2.Job):
                    answer = _UNARY(part)
        return answer

    async def VisualizeStream(  # type: ignore[override]  # noqa: N802
        self, requests: AsyncIterator[JobRequest], context: Context
    ) -> AsyncIterator[visualization_pb2.VisualizeStreamResponse | bytes]:
        """Many jobs. No more than `stream_jobs` are taken at once: a slow reader slows the queueing, not the memory."""
        sending = Sending(self._front.sending, context)

        def answer(request: JobRequest, turn: Turn) -> AsyncGenerator[tuple[str, job_pb2.Job | results.Part]]:
            return self._answer(request, context, sending, turn)

        stream = Stream(answer, self._front.settings.stream_jobs)
        async with contextlib.aclosing(stream.responses(requests)) as responses:
            async for response in responses:
                yield response

    async def _answer(
        self, request: JobRequest, context: Context, sending: Sending, turn: Turn | None = None, *, whole: bool = False
    ) -> AsyncGenerator[tuple[str, job_pb2.Job | results.Part]]:
        """The parts of one answer, by their fields' names; those of its result once it is its `turn`.

        One that is to be `whole` and cannot be is refused at once.
        Leaving early is one waiter less for the job.
        """
        front, tenant = self._front, caller().tenant
        request_id = canonical_request_id(request.message.request_id)
        call = Call(job_id(request_id, tenant), request_id, tenant, False, context.time_remaining(), whole)
        with front.listening(call.job_id) as heard:
            submitted = await front.submit(request, call)
            del request
            async with front.waiting(submitted) as record:
                if not record.state.final and not await heard.ends_within(AT_ONCE_SECONDS):
                    yield "job", responses.job(record)
                ended = await front.ended(record, heard)
                if ended.failure and ended.failure.reason == MODEL_CHANGED:
                    raise model_changed(ended)
                if turn:
                    await turn()
                async with contextlib.aclosing(results.parts(front, ended, sending)) as parts:
                    async for part in parts:
                        yield part


_VISUALIZE: Final = {name: results.answered(visualization_pb2.VisualizeResponse, name) for name in ("header", "chunk")}
_UNARY: Final = results.answered(visualization_pb2.VisualizeUnaryResponse, "header")
_READ: Final = {name: results.answered(job_pb2.ReadJobResultResponse, name) for name in ("header", "chunk")}


class Jobs(job_pb2_grpc.JobServiceServicer):
    """Jobs by their ids."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def SubmitJob(self, request: JobRequest, context: Context) -> job_pb2.SubmitJobResponse:  # type: ignore[override]  # noqa: N802, ARG002
        """Queues a job that is kept until it ends."""
        tenant = caller().tenant
        request_id = canonical_request_id(request.message.request_id)
        call = Call(job_id(request_id, tenant), request_id, tenant, keep=True)
        record = await (await self._front.submit(request, call))
        return job_pb2.SubmitJobResponse(job=responses.job(record))

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.GetJobResponse:  # noqa: N802, ARG002
        """A job's state."""
        record = await self._front.record(valid_job_id(request.id), caller())
        return job_pb2.GetJobResponse(job=responses.job(record))

    async def WatchJob(  # noqa: N802
        self,
        request: job_pb2.WatchJobRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        """The job at every change."""
        front = self._front
        async with front.waiting(asyncio.ensure_future(self._joined(request.id))) as record:
            async for changed in front.changes(record.id):
                yield job_pb2.WatchJobResponse(job=responses.job(changed))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:  # noqa: N802
        """A page of jobs, newest first."""
        if not 0 <= request.page_size <= 1000:
            raise invalid("page_size", f"is {request.page_size}; allowed: 0 (100) and 1…1000")
        if request.page_token and not re.fullmatch(r"[0-9]{1,18}", request.page_token):
            raise invalid("page_token", "is not one that this server gave")
        if request.state not in job_pb2.JobState.values():
            raise invalid("state", f"is {request.state}; allowed: {', '.join(job_pb2.JobState.keys())}")
        before = int(request.page_token) if request.page_token else None
        state = State(request.state) if request.state else None
        tenant = None if "admin" in caller().roles else caller().tenant
        size = request.page_size or 100
        async with SendingOne(self._front.sending, context).part(size * LISTED_BYTES) as write:
            found, after = await self._front.page(size, before, state, tenant)
            write.begin()
            return job_pb2.ListJobsResponse(jobs=found, next_page_token=str(after) if after else "")

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Context) -> job_pb2.CancelJobResponse:  # noqa: N802, ARG002
        """Ends a job."""
        record = await self._front.record(valid_job_id(request.id), caller())
        ended: Record | None = await self._front.call(self._front.ledger.cancel, record.id)
        return job_pb2.CancelJobResponse(job=responses.job(ended or record))

    async def DeleteJob(self, request: job_pb2.DeleteJobRequest, context: Context) -> job_pb2.DeleteJobResponse:  # noqa: N802, ARG002
        """Forgets an ended job."""
        record = await self._front.record(valid_job_id(request.id), caller())
        await self._front.call(self._front.ledger.delete, record)
        return job_pb2.DeleteJobResponse()

    async def ReadJobResult(  # type: ignore[override]  # noqa: N802
        self,
        request: job_pb2.ReadJobResultRequest,
        context: Context,
    ) -> AsyncIterator[bytes]:
        """A result's bytes from an offset on."""
        record = await self._front.record(valid_job_id(request.id), caller())
        if not record.state.final:
            raise JobLive(f"job {record.id} is {record.state.name}; its result can be read once it has SUCCEEDED")
        offset = result_positions(request.offset, record.result_bytes)
        sending = Sending(self._front.sending, context)
        async with contextlib.aclosing(results.parts(self._front, record, sending, offset)) as parts:
            async for name, part in parts:
                yield _READ[name](part)

    async def _joined(self, name: str) -> Record:
        """The record of a job that this call waits for from now on."""
        record = await self._front.record(valid_job_id(name), caller())
        joined: Record | None = await self._front.call(self._front.ledger.join, record)
        if joined is None:
            raise unknown_job(record.id)
        return joined


class Models(model_pb2_grpc.ModelServiceServicer):
    """What can be asked."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> model_pb2.ListModelsResponse:  # noqa: N802, ARG002
        """Every model served, and every one refused."""
        live = await self._front.live()
        models = [live.models[name] for name in sorted(live.models)]
        return model_pb2.ListModelsResponse(models=models, refused=live.refused)

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.GetModelResponse:  # noqa: N802, ARG002
        """One model."""
        if not request.name:
            raise invalid("name", "is empty; a model's name is needed")
        return model_pb2.GetModelResponse(model=find_model(request.name, await self._front.live(), "name"))

    async def GetServerInfo(  # noqa: N802
        self,
        request: model_pb2.GetServerInfoRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> model_pb2.GetServerInfoResponse:
        """Version, limits, features."""
        return model_pb2.GetServerInfoResponse(
            version=VERSION,
            limits=responses.limits(self._front.settings),
            default_model=default_model((await self._front.live()).models),
        )
