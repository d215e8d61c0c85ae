"""A job's record: the values that the ledger hands out. Knows nothing of Redis."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass


class State(enum.IntEnum):
    """Where a job is in its life; the numbers are those of convlens.v1.JobState."""

    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5
    EXPIRED = 6

    @property
    def final(self) -> bool:
        """True for the four that a job never leaves."""
        return self >= State.SUCCEEDED


class Priority(enum.IntEnum):
    """Queues, best first; the numbers are those of convlens.v1.Priority."""

    HIGH = 1
    NORMAL = 2
    LOW = 3


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job has no result."""

    reason: str
    """UPPER_SNAKE and stable."""
    message: str
    field: str = ""
    """The field of the request at fault, or empty."""


@dataclass(frozen=True, slots=True)
class Record:
    """A job as Redis has it. Times are seconds since the epoch by Redis' clock."""

    id: str
    state: State
    model: str
    queue: str
    priority: Priority
    images: int
    fingerprint: str
    request: str
    """The name of the request's payload."""
    request_size: int
    request_crc: int
    request_id: str
    sequence: int
    created: float
    deadline: float
    started: float | None
    ended: float | None
    expires: float | None
    attempts: int
    token: str
    """The last claim's secret; the result's payloads are named after it."""
    worker: str
    result_bytes: int
    header_size: int
    header_crc: int
    failure: JobFailure | None
    progress: float
    """0…1, as its worker last told."""

    @property
    def expired(self) -> bool:
        """True when the time of its result is over, by this machine's clock."""
        return self.expires is not None and self.expires <= time.time()

    @classmethod
    def parse(cls, job_id: str, fields: Mapping[bytes, bytes]) -> Record:
        """The record that a hash's fields make."""
        text = {name.decode(): value.decode() for name, value in fields.items()}

        def seconds(name: str) -> float | None:
            return int(text[name]) / 1000 if text.get(name) else None

        return cls(
            id=job_id,
            state=State(int(text["state"])),
            model=text["model"],
            queue=text["queue"],
            priority=Priority(int(text["priority"])),
            images=int(text["images"]),
            fingerprint=text["fingerprint"],
            request=text["request"],
            request_size=int(text["request_size"]),
            request_crc=int(text["request_crc"]),
            request_id=text["request_id"],
            sequence=int(text["sequence"]),
            created=int(text["created"]) / 1000,
            deadline=int(text["deadline"]) / 1000,
            started=seconds("started"),
            ended=seconds("ended"),
            expires=seconds("expires"),
            attempts=int(text["attempts"]),
            token=text.get("token", ""),
            worker=text.get("worker", ""),
            result_bytes=int(text.get("result_bytes", 0)),
            header_size=int(text.get("header_size", 0)),
            header_crc=int(text.get("header_crc", 0)),
            failure=JobFailure(text["reason"], text["message"], text["field"]) if text.get("reason") else None,
            progress=float(text.get("progress") or 0),
        )
