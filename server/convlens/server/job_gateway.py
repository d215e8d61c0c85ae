"""The way of the services to the job queue: validates and submits jobs, reads, lists, cancels and deletes them.

Submissions that wait at the same time go to Redis in one script, and with them the calls that leave their jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar, cast

from convlens.jobs.model_registry import LiveModels
from convlens.jobs.queue.admission import AdmissionRejected
from convlens.jobs.queue.new_job import NewJob, NotSubmitted
from convlens.jobs.queue.producer import Producer, Waiting
from convlens.jobs.queue.record import Record, State
from convlens.jobs.runtime.background import WorkQueue
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.server import metrics, responses
from convlens.server.auth.principal import Caller
from convlens.server.model_cache import ModelCache
from convlens.server.requests import JobRequest
from convlens.server.settings import ServerSettings
from convlens.server.status import to_status_error, unknown_job
from convlens.server.validation import Submission, validate
from convlens.v1 import job_pb2

log = logging.getLogger(__name__)

SUBMIT_ALONE_BYTES: Final = 1 << 20
"""A job with more bytes of images is submitted alone, so that no other waits until they are stored."""
LEAVE_SECONDS: Final = 0.05
"""A call leaves its job with the next submission, or after this time."""
MAX_LEAVING: Final = 64
"""Calls that leave in one script."""
STORE_THREADS: Final = 4
"""Threads per coalescer where the payload store blocks."""

T = TypeVar("T")
R = TypeVar("R")


class Coalescer(Generic[T, R]):
    """Runs a blocking function over batches of the items that wait at the same time, and resolves one future per item.

    The function returns one result per item, in order. An exception among the results fails the future of its item; an
    exception that the function raises fails the futures of the whole batch.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        function: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        max_batch: int = 16,
        threads: int = 1,
    ) -> None:
        """Start the threads. One is best where the function hardly waits: more of them make smaller batches."""
        self._loop = loop
        self._function = function
        self._queue = WorkQueue(name, self._run_batch, threads=threads, batch=max_batch)
        self._queue.start()

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue `item` and return the future of its result. For the event loop's thread alone."""
        future: asyncio.Future[R] = self._loop.create_future()
        self._queue.put((item, future))
        return future

    def close(self) -> None:
        """Run what is pending, then stop the threads."""
        self._queue.close()

    def _run_batch(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        results: Sequence[R | Exception]
        try:
            results = self._function([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - raised by the futures
            results = [error] * len(batch)
        self._loop.call_soon_threadsafe(_resolve, [future for _, future in batch], results)


def _resolve(futures: Sequence[asyncio.Future[R]], results: Sequence[R | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.cancelled():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


@dataclasses.dataclass(frozen=True, slots=True)
class PendingSubmission:
    """A request that waits to be validated and submitted."""

    request: JobRequest
    submission: Submission
    live: LiveModels


class JobGateway:
    """Access to the job queue for the event loop."""

    def __init__(self, settings: ServerSettings, producer: Producer, models: ModelCache) -> None:
        self._settings = settings
        self._producer = producer
        self._models = models
        self._loop = asyncio.get_running_loop()
        self._list_thread = ThreadPoolExecutor(1, thread_name_prefix="list")
        """Listings are slow; one at a time, they delay no submission."""
        self._leaving: deque[Waiting] = deque()
        """Calls that have left their jobs, to be sent to Redis."""
        self._leave_timer: asyncio.TimerHandle | None = None
        store_threads = STORE_THREADS if producer.payloads.may_block else 1
        self._small = Coalescer(self._loop, "submit", self._submit_batch, threads=store_threads)
        self._large = Coalescer(self._loop, "submit-large", self._submit_batch, threads=store_threads, max_batch=1)

    async def close(self) -> None:
        """Finish all submissions, send the calls that have left, stop all threads."""
        await self._loop.run_in_executor(None, self._large.close)
        if self._leave_timer:
            self._leave_timer.cancel()
        for _ in range(0, len(self._leaving), MAX_LEAVING):
            self._small.submit(None)
        await self._loop.run_in_executor(None, self._small.close)
        self._list_thread.shutdown(cancel_futures=True)

    # --- submitting ---

    async def submit(self, request: JobRequest, submission: Submission) -> asyncio.Future[Record]:
        """Validate and queue a job; the future is its record, or the one that its request id made earlier.

        The job is queued even when its caller goes away meanwhile.
        """
        coalescer = self._large if request.size > SUBMIT_ALONE_BYTES else self._small
        pending = PendingSubmission(request, submission, await self._models.get())
        return cast("asyncio.Future[Record]", coalescer.submit(pending))

    def _submit_batch(self, batch: Sequence[PendingSubmission | None]) -> Sequence[Record | Exception | None]:
        """Submit several jobs in one script, in a thread. None is a batch entry that only sends the leaving calls."""
        jobs: list[NewJob] = []
        rejected: dict[int, Exception] = {}
        known_names = self._models.known_names
        for place, pending in enumerate(batch):
            try:
                if pending:
                    jobs.append(
                        validate(pending.request, pending.submission, pending.live, self._settings, known_names)
                    )
            except Exception as error:  # noqa: BLE001 - mapped to a status
                rejected[place] = to_status_error(error).without_traceback()
        results: Iterator[Record | Exception]
        leaving = self._pop_leaving()
        try:
            results = map(self._complete, self._producer.submit(jobs, leaving))
        except RedisUnavailable as error:
            results = itertools.repeat(error)
            self._leaving.extendleft(leaving)  # they leave again with the next script: leaving twice is leaving once
        return [rejected.get(place) or next(results) if pending else None for place, pending in enumerate(batch)]

    def _complete(self, outcome: Record | NotSubmitted) -> Record | Exception:
        """Count and log one submission."""
        if isinstance(outcome, Exception):
            if isinstance(outcome, AdmissionRejected):
                metrics.REFUSED.labels(outcome.limit).inc()
            return outcome
        kind = "cached" if outcome.cached else "follows" if outcome.primary else "queued"
        metrics.JOBS.labels(outcome.model, kind).inc()
        log.debug(
            "job=%s model=%s images=%d flow=%s submitted", outcome.id, outcome.model, outcome.images, outcome.flow
        )
        return outcome

    # --- waiting and leaving ---

    @contextlib.asynccontextmanager
    async def joined(self, joining: asyncio.Future[Record]) -> AsyncIterator[Record]:
        """Wait for a job as one of its waiters; leave it at the end of the `with`.

        A call that is cancelled while it joins leaves as soon as it has joined.
        """
        try:
            yield await asyncio.shield(joining)
        finally:
            joining.add_done_callback(self._leave)

    def _leave(self, joining: asyncio.Future[Record]) -> None:
        if joining.cancelled() or joining.exception():
            return
        record = joining.result()
        self._leaving.append((record.id, record.waiter))
        self._leave_timer = self._leave_timer or self._loop.call_later(LEAVE_SECONDS, self._flush_leaving)

    def _flush_leaving(self) -> None:
        """Send the calls that have left with the next script, and the rest a little later."""
        if self._leave_timer:
            self._leave_timer.cancel()
        self._leave_timer = None
        if self._leaving:
            self._small.submit(None)
            if len(self._leaving) > MAX_LEAVING:
                self._leave_timer = self._loop.call_later(LEAVE_SECONDS, self._flush_leaving)

    def _pop_leaving(self) -> list[Waiting]:
        leaving: list[Waiting] = []
        with contextlib.suppress(IndexError):  # other threads pop, too
            while len(leaving) < MAX_LEAVING:
                leaving.append(self._leaving.popleft())
        return leaving

    async def join(self, job_id: str, caller: Caller) -> Record:
        """Become a waiter of an existing job. StatusError when there is none that the caller may see."""
        record = await self.get(job_id, caller)
        joined = await self._loop.run_in_executor(None, self._producer.join, record)
        if joined is None:
            raise unknown_job(job_id)
        return joined

    # --- reading and ending ---

    async def get(self, job_id: str, caller: Caller) -> Record:
        """Return the record of a job. StatusError when there is none that the caller may see."""
        record = await self.read(job_id)
        if not (record.tenant == caller.tenant or "admin" in caller.roles):
            raise unknown_job(job_id)
        return record

    async def read(self, job_id: str) -> Record:
        """Return the record of any tenant's job. StatusError when there is none."""
        record = await self._loop.run_in_executor(None, self._producer.get, job_id)
        if record is None:
            raise unknown_job(job_id)
        return record

    async def list_jobs(
        self, size: int, before: int | None, state: State | None, tenant: str | None
    ) -> tuple[list[job_pb2.Job], int | None]:
        """Return up to `size` jobs, newest first, and where the next page begins: see Producer.page."""

        def read_page() -> tuple[list[job_pb2.Job], int | None]:
            records, after = self._producer.page(size, before, state, tenant)
            return [responses.job(record) for record in records], after

        return await self._loop.run_in_executor(self._list_thread, read_page)

    async def cancel(self, job_id: str, caller: Caller) -> Record:
        """End a job; return its record."""
        record = await self.get(job_id, caller)
        ended = await self._loop.run_in_executor(None, self._producer.cancel, record.id)
        return ended or record

    async def delete(self, job_id: str, caller: Caller) -> None:
        """Delete an ended job and its result. JobNotFinished when it has not ended."""
        await self._loop.run_in_executor(None, self._producer.delete, await self.get(job_id, caller))
