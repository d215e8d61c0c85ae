"""A job by its id: status, changes, result, end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from convlens.client._async.calls import AsyncAttempts, AsyncCalls
from convlens.client.errors import check_process, wait_timeout_error
from convlens.client.job_status import JobStatus
from convlens.client.progress import Progress, ProgressCallback, progress_reporter
from convlens.client.request import JobRequest
from convlens.client.result import Result
from convlens.client.retry import FIRST_DELAY, RetryPolicy
from convlens.client.timeouts import checked_timeout
from convlens.v1 import job_pb2


class AsyncJob:
    """A job on the server. Made by a client's submit() and job()."""

    def __init__(self, calls: AsyncCalls, job_id: str, request: JobRequest | None = None) -> None:
        self._calls = calls
        self._request = request
        self.id = job_id
        self.request_id = request.request_id if request else ""

    def __repr__(self) -> str:
        return f"<AsyncJob {self.id}>"

    async def status(self) -> JobStatus:
        """Return the job as it is now. NotFound once it was deleted."""
        request = job_pb2.GetJobRequest(id=self.id)
        return JobStatus.from_message((await self._calls.unary(lambda stubs: stubs.jobs.GetJob, request)).job)

    def watch(self, timeout: float | None = None) -> AsyncIterator[JobStatus]:
        """Yield the job now and at every change until it has ended; DeadlineExceeded after `timeout` seconds.

        `timeout` is by default the client's; math.inf is no limit, and 0 yields the job now and nothing more. A server
        that goes away meanwhile is called again until then.
        """
        seconds = checked_timeout(timeout, self._calls.timeout, or_zero=True)
        return self._watch(seconds) if seconds else self._watch_once()

    async def _watch_once(self) -> AsyncIterator[JobStatus]:
        status = await self.status()
        yield status
        if not status.state.is_final:
            raise wait_timeout_error(self.id, 0)

    async def _watch(self, timeout: float) -> AsyncIterator[JobStatus]:
        connection, session = self._calls.connection, await self._calls.transport.session()
        late = wait_timeout_error(self.id, timeout)
        policy = RetryPolicy(connection, timeout, self.request_id, late)
        request = job_pb2.WatchJobRequest(id=self.id)
        last: JobStatus | None = None
        process = os.getpid()
        while last is None or not last.state.is_final:
            if last is not None:  # the stream ended early, without an error
                await session.calls.pause(FIRST_DELAY)
            async for attempt in AsyncAttempts(session, session.calls, policy):
                with attempt as seconds:
                    async with session.calls.stream(
                        session.stubs.jobs.WatchJob, request, seconds, self._calls.token
                    ) as changes:
                        async for change in changes:
                            connection.mark_reached()
                            status = JobStatus.from_message(change.job)
                            if last is None or last.has_changed(status):
                                last = status
                                yield status
                                check_process(process, "watch")

    async def wait(self, timeout: float | None = None, *, progress: bool | ProgressCallback = False) -> JobStatus:
        """Wait until the job has ended, in whatever state, and return its status.

        `timeout` as in watch(), `progress` as in visualize().
        """
        with progress_reporter(progress) as report:
            async for status in self.watch(timeout):
                last = status
                if report:
                    report(Progress.from_status(status))
        return last

    async def result(self, timeout: float | None = None, *, progress: bool | ProgressCallback = False) -> Result:
        """Wait for the job, `timeout` and `progress` as in wait(), and return its result.

        Raises what the job ended with if it has no result: JobFailed, Cancelled, DeadlineExceeded, or NotFound
        (RESULT_EXPIRED) once it was deleted.
        """
        seconds = checked_timeout(timeout, self._calls.timeout, or_zero=True)
        await self.wait(seconds, progress=progress)
        return await self._calls.read_result(self.id, self._request, seconds or self._calls.timeout)

    async def cancel(self) -> JobStatus:
        """Cancel the job and return its status; one that has ended stays as it is."""
        request = job_pb2.CancelJobRequest(id=self.id)
        return JobStatus.from_message((await self._calls.unary(lambda stubs: stubs.jobs.CancelJob, request)).job)

    async def delete(self) -> None:
        """Delete a job that has ended, and its result. FailedPrecondition while it has not."""
        await self._calls.unary(lambda stubs: stubs.jobs.DeleteJob, job_pb2.DeleteJobRequest(id=self.id))
