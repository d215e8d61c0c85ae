"""The jobs of the fake server: what they compute is known at once; the clock says when they start and end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from convlens.client.testing.cards import LIMITS
from convlens.v1 import job_pb2, result_pb2
from convlens.v1.status_error import StatusError

_LIVE: Final = {job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING}


@dataclass(slots=True)
class FakeJob:
    """A job and its result. Times are seconds since the epoch."""

    message: job_pb2.Job
    content: bytes
    """Equal for equal requests."""
    header: result_pb2.ResultHeader
    data: bytes
    starts: float
    ends: float
    deadline: float
    is_cached: bool = False
    """True if the result of an equal job answers this one."""
    failure: job_pb2.JobError | None = None
    """What it ends with in the place of a result."""
    is_kept: bool = False
    """True for a job of SubmitJob, which runs whether a call waits for it or not."""
    waiters: set[object] = field(default_factory=set)

    @property
    def has_ended(self) -> bool:
        """True for a final state."""
        return self.message.state not in _LIVE


class JobTable:
    """All jobs by id, in the order of submission. Safe across threads."""

    def __init__(self) -> None:
        self._jobs: dict[str, FakeJob] = {}
        self._changed = threading.Condition()

    def add(self, job: FakeJob) -> FakeJob:
        """Add a job, or return the earlier one of its id. StatusError where that was another request's."""
        with self._changed:
            earlier = self._jobs.get(job.message.id)
            if earlier and earlier.content != job.content:
                raise StatusError(
                    "REQUEST_ID_REUSED", "request_id: was used before for another request", field="request_id"
                )
            repeatable = {"ABANDONED", "MODEL_CHANGED", "DEADLINE_EXCEEDED"}
            if earlier and self._advance(earlier).message.error.reason not in repeatable:
                earlier.is_kept = earlier.is_kept or job.is_kept
                return earlier
            self._jobs.pop(job.message.id, None)
            self._jobs[job.message.id] = job
            return job

    def get(self, job_id: str) -> FakeJob:
        """Return a job as it is now. StatusError JOB_UNKNOWN where there is none."""
        with self._changed:
            if job := self._jobs.get(job_id):
                return self._advance(job)
        raise StatusError("JOB_UNKNOWN", f"there is no job {job_id!r}", metadata={"job_id": job_id})

    def equal(self, content: bytes) -> FakeJob | None:
        """Return the latest equal job that has a result, or is to have one."""
        usable = {*_LIVE, job_pb2.JOB_STATE_SUCCEEDED}
        equal = [job for job in self.newest_first() if job.content == content and job.message.state in usable]
        return next((job for job in equal if not job.failure and not job.message.result_expired), None)

    def newest_first(self) -> list[FakeJob]:
        """Return all jobs as they are now."""
        with self._changed:
            return [self._advance(job) for job in reversed(self._jobs.values())]

    def changes(self, job: FakeJob, is_active: Callable[[], bool]) -> Iterator[job_pb2.Job]:
        """Yield the job now and at each change, until it or the waiting call has ended.

        A job that is not kept is cancelled when its last waiting call goes away.
        """
        waiter, last = object(), None
        job.waiters.add(waiter)
        try:
            while is_active() and (last is None or last.state in _LIVE):
                with self._changed:
                    current = self._advance(job).message
                    if last and current.state == last.state:
                        starts = job.starts if current.state == job_pb2.JOB_STATE_QUEUED else math.inf
                        self._changed.wait(max(0.001, min(starts, job.ends, job.deadline) - time.time()))
                        continue
                    last = job_pb2.Job.FromString(current.SerializeToString())
                yield last
        finally:
            job.waiters.discard(waiter)
            if not job.waiters and not job.is_kept:
                self.end(job, job_pb2.JOB_STATE_CANCELLED, "ABANDONED", "all callers went away")

    def wake(self) -> None:
        """Let waiting calls check whether they are still active."""
        with self._changed:
            self._changed.notify_all()

    def end(self, job: FakeJob, state: job_pb2.JobState.ValueType, reason: str, message: str) -> None:
        """End a live job with an error; an ended one stays as it is."""
        with self._changed:
            if not self._advance(job).has_ended:
                self._end(job, state, time.time(), job_pb2.JobError(reason=reason, message=message))
                self._changed.notify_all()

    def delete(self, job: FakeJob) -> None:
        """Delete an ended job and its result."""
        with self._changed:
            if not self._advance(job).has_ended:
                raise StatusError("JOB_NOT_ENDED", f"job {job.message.id} has not ended")
            del self._jobs[job.message.id]

    def _advance(self, job: FakeJob) -> FakeJob:
        """Bring a job's state up to the present."""
        now, message, end = time.time(), job.message, min(job.ends, job.deadline)
        if message.state == job_pb2.JOB_STATE_QUEUED and job.starts <= min(now, end):
            message.state, message.attempts = job_pb2.JOB_STATE_RUNNING, 1
            message.start_time.CopyFrom(timestamp(job.starts))
            message.ClearField("queue_position")
        if not job.has_ended and now >= end:
            if job.deadline < job.ends:
                text = f"the deadline passed while the job was {'running' if message.attempts else 'queued'}"
                error = job_pb2.JobError(reason="DEADLINE_EXCEEDED", message=text)
                self._end(job, job_pb2.JOB_STATE_EXPIRED, end, error)
            else:
                state = job_pb2.JOB_STATE_FAILED if job.failure else job_pb2.JOB_STATE_SUCCEEDED
                self._end(job, state, end, job.failure)
        return job

    def _end(self, job: FakeJob, state: job_pb2.JobState.ValueType, now: float, error: job_pb2.JobError | None) -> None:
        job.message.state = state
        job.message.ClearField("queue_position")
        job.message.end_time.CopyFrom(timestamp(now))
        job.message.expire_time.CopyFrom(timestamp(now + LIMITS.result_ttl.seconds))
        if error:
            job.message.error.CopyFrom(error)
        else:
            job.message.result_bytes, job.message.cached = len(job.data), job.is_cached


def timestamp(seconds: float) -> Timestamp:
    """Convert seconds since the epoch."""
    message = Timestamp()
    message.FromMilliseconds(round(seconds * 1000))
    return message
