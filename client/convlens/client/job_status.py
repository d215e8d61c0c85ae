"""What the server says of a job: its state, times, place in the queue and error."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final, Literal, Self

from convlens.client.errors import InvalidArgument
from convlens.v1 import job_pb2, spec_pb2
from convlens.v1.enums import short_name, values_by_name

StateName = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]


class JobState(IntEnum):
    """The state of a job, with its number on the wire. Those from SUCCEEDED on are final."""

    UNKNOWN = 0
    """A state newer than this client."""
    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5
    EXPIRED = 6
    """The deadline passed before the job was done."""

    @property
    def is_final(self) -> bool:
        """True if the job has ended."""
        return self >= JobState.SUCCEEDED

    def __str__(self) -> str:
        """The name as Client.jobs() takes it: queued, running…"""
        return self.name.lower()

    @classmethod
    def _missing_(cls, _value: object) -> JobState:
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class JobErrorInfo:
    """Why a job ended without a result."""

    reason: str
    """UPPER_SNAKE, stable."""
    message: str
    field: str = ""
    """The field of the request at fault; empty if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JobStatus:
    """A job at one moment. Times are in UTC."""

    id: str
    state: JobState
    model: str = ""
    images: int = 0
    priority: str = ""
    create_time: datetime | None = None
    start_time: datetime | None = None
    """None until the job runs."""
    end_time: datetime | None = None
    """None until the job has ended."""
    deadline: datetime | None = None
    expire_time: datetime | None = None
    """When the result is deleted; None until the job has ended."""
    attempts: int = 0
    queue_position: int | None = None
    """0 for the job that is next; None unless the job is queued."""
    progress: float = 0.0
    """Share of the passes of the network that are done, 0…1."""
    result_bytes: int = 0
    result_expired: bool = False
    error: JobErrorInfo | None = None
    """None unless the job failed, was cancelled or expired."""
    request_id: str = ""
    cached: bool = False
    """True if the result of an equal request answered."""

    def __repr__(self) -> str:
        notes = f": {self.error.reason}" if self.error else f", {self.progress:.0%}" if self.progress else ""
        return f"<JobStatus {self.id} {self.state}{notes}>"

    @classmethod
    def from_message(cls, job: job_pb2.Job) -> Self:
        """Return the status that a Job message states."""
        times = {name: _time(job, name) for name in _TIMES}
        error = JobErrorInfo(job.error.reason, job.error.message, job.error.field) if job.HasField("error") else None
        return cls(
            id=job.id, state=JobState(job.state), model=job.model, images=job.images,
            priority=short_name(spec_pb2.Priority, job.priority) or "", attempts=job.attempts,
            queue_position=job.queue_position if job.HasField("queue_position") else None, progress=job.progress,
            result_bytes=job.result_bytes, result_expired=job.result_expired, error=error, request_id=job.request_id,
            cached=job.cached, **times,
        )  # fmt: skip

    def has_changed(self, other: JobStatus) -> bool:
        """Return True if a watcher should hear of `other` after this one."""
        return (self.state, self.attempts, self.progress) != (other.state, other.attempts, other.progress)


_TIMES: Final = ("create_time", "start_time", "end_time", "deadline", "expire_time")


def _time(job: job_pb2.Job, field: str) -> datetime | None:
    return getattr(job, field).ToDatetime(UTC) if job.HasField(field) else None  # type: ignore[arg-type]


def state_number(name: str | None) -> job_pb2.JobState.ValueType:
    """Return a state on the wire, UNSPECIFIED (all of them) for None. InvalidArgument for an unknown name."""
    states = values_by_name(job_pb2.JobState)
    if name and name.lower() not in states:
        raise InvalidArgument(f"no state {name!r}; allowed: {', '.join(states)}", field="state")
    number: job_pb2.JobState.ValueType = states[name.lower()] if name else job_pb2.JOB_STATE_UNSPECIFIED
    return number
