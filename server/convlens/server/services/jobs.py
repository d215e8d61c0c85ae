"""JobService: jobs by their ids."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from convlens.jobs.queue.producer import JobNotFinished
from convlens.jobs.queue.record import State
from convlens.server import responses
from convlens.server.auth.principal import current_caller
from convlens.server.job_gateway import JobGateway
from convlens.server.requests import JobRequest
from convlens.server.responses import ResultReader
from convlens.server.services import Context
from convlens.server.transport.send_budget import CallSendBudget, SendBudget, UnarySendBudget
from convlens.server.validation import Submission
from convlens.server.waiters import Waiters
from convlens.v1 import job_pb2, job_pb2_grpc
from convlens.v1.request.fields import DEFAULT_PAGE_SIZE, canonical_request_id, check_job_id, check_offset, check_page

LISTED_JOB_BYTES: Final = 500
"""Approximate size of one job in a page."""


class JobService(job_pb2_grpc.JobServiceServicer):
    """Submits, reads, watches, lists, cancels and deletes jobs; reads their results."""

    def __init__(self, gateway: JobGateway, waiters: Waiters, results: ResultReader, send_budget: SendBudget) -> None:
        self._gateway = gateway
        self._waiters = waiters
        self._results = results
        self._send_budget = send_budget

    async def SubmitJob(self, request: JobRequest, context: Context) -> job_pb2.SubmitJobResponse:  # type: ignore[override]  # noqa: N802, ARG002
        """Queue a job that runs whether anybody waits for it or not."""
        submission = Submission(canonical_request_id(request.message.request_id), current_caller().tenant, keep=True)
        record = await (await self._gateway.submit(request, submission))
        return job_pb2.SubmitJobResponse(job=responses.job(record))

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.GetJobResponse:  # noqa: N802, ARG002
        """Return a job's state."""
        record = await self._gateway.get(check_job_id(request.id), current_caller())
        return job_pb2.GetJobResponse(job=responses.job(record))

    async def WatchJob(  # noqa: N802
        self,
        request: job_pb2.WatchJobRequest,
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        """Stream the job now and at each change, as one of its waiters."""
        joining = asyncio.ensure_future(self._gateway.join(check_job_id(request.id), current_caller()))
        async with self._gateway.joined(joining) as joined:
            async for record in self._waiters.watch(joined.id):
                yield job_pb2.WatchJobResponse(job=responses.job(record))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:  # noqa: N802
        """Return a page of jobs, newest first: those of the caller's tenant, or all to an admin."""
        check_page(request)
        before = int(request.page_token) if request.page_token else None
        state = State(request.state) if request.state else None
        caller = current_caller()
        tenant = None if "admin" in caller.roles else caller.tenant
        size = request.page_size or DEFAULT_PAGE_SIZE
        async with UnarySendBudget(self._send_budget, context).part(size * LISTED_JOB_BYTES) as write:
            jobs, after = await self._gateway.list_jobs(size, before, state, tenant)
            write.start()
            return job_pb2.ListJobsResponse(jobs=jobs, next_page_token=str(after) if after else "")

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Context) -> job_pb2.CancelJobResponse:  # noqa: N802, ARG002
        """End a job for all who wait for it."""
        record = await self._gateway.cancel(check_job_id(request.id), current_caller())
        return job_pb2.CancelJobResponse(job=responses.job(record))

    async def DeleteJob(self, request: job_pb2.DeleteJobRequest, context: Context) -> job_pb2.DeleteJobResponse:  # noqa: N802, ARG002
        """Delete an ended job and its result."""
        await self._gateway.delete(check_job_id(request.id), current_caller())
        return job_pb2.DeleteJobResponse()

    async def ReadJobResult(  # noqa: N802
        self, request: job_pb2.ReadJobResultRequest, context: Context
    ) -> AsyncIterator[job_pb2.ReadJobResultResponse]:
        """Stream a result's header and its bytes from an offset on."""
        record = await self._gateway.get(check_job_id(request.id), current_caller())
        if not record.state.final:
            raise JobNotFinished(
                f"job {record.id} is {record.state.name}; its result can be read once it has SUCCEEDED"
            )
        offset = check_offset(request.offset, record.result_bytes)
        sending = CallSendBudget(self._send_budget, context)
        parts = self._results.responses(record, sending, job_pb2.ReadJobResultResponse, offset)
        async with contextlib.aclosing(parts):
            async for response in parts:
                yield response
                del response
