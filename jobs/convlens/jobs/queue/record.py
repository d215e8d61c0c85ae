"""A job's record: the values that the queue returns. Knows nothing of Redis."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


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
class StoredImage:
    """Where an image's bytes are: in a payload with others that came with it; equal images of a tenant in one place."""

    digest: str
    """BLAKE3 of the bytes, keyed by the tenant."""
    payload: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Record:
    """A job as Redis has it. Times are seconds since the epoch by Redis' clock."""

    id: str
    state: State
    model: str
    tenant: str
    flow: str
    """The queue it waits in: POOL/PRIORITY/KIND/TENANT."""
    priority: Priority
    images: int
    request_id: str
    created: float
    deadline: float
    started: float | None = None
    ended: float | None = None
    expires: float | None = None
    expired: bool = False
    """True when the time of its result was over when the record was read."""
    pixels: int = 0
    """To be decoded, as they count; 0 once it has ended."""
    attempts: int = 0
    token: str = ""
    """The last claim's secret; its result is named after it."""
    worker: str = ""
    result: str = ""
    """The payload: the tensors' bytes, then the header. Empty unless SUCCEEDED."""
    result_bytes: int = 0
    """Of the tensors."""
    header_size: int = 0
    cached: bool = False
    """True when an equal request's result answers it."""
    primary: str = ""
    """The equal job under way with which this one is coalesced; empty for one that is computed itself."""
    failure: JobFailure | None = None
    progress: float = 0.0
    """0…1, as its worker last reported."""
    position: int | None = None
    """How many jobs of its flow were before it in its queue; None for one that does not wait there."""
    waiter: str = ""
    """The name by which the call that got this record waits for the job; empty for one that does not wait."""

    @property
    def pool(self) -> str:
        """Who may compute it: the workers that serve its model as it was when the job was validated."""
        return self.flow.partition("/")[0]

    @property
    def kind(self) -> str:
        """What it takes: many (passes, or bytes), huge or slow (images to decode), or one: a pass of each image."""
        return self.flow.split("/", 3)[2]

    @property
    def is_large(self) -> bool:
        """True for a job that costs more than a pass of each image: it is not to hold up those that do not."""
        return self.kind in {"many", "huge"}

    @classmethod
    def parse(cls, job_id: str, fields: Mapping[bytes, bytes], now: float = 0.0) -> Record:
        """The record that a hash's fields make, read when Redis' clock said `now`."""

        def text(name: bytes) -> str:
            return fields.get(name, b"").decode()

        def number(name: bytes) -> int:
            return int(fields.get(name) or 0)

        def seconds(name: bytes) -> float | None:
            return number(name) / 1000 if fields.get(name) else None

        expires = seconds(b"expires")
        reason = text(b"reason")
        return cls(
            id=job_id,
            state=State(number(b"state")),
            model=text(b"model"),
            tenant=text(b"tenant"),
            flow=text(b"flow"),
            priority=Priority(number(b"priority")),
            images=number(b"count"),
            request_id=text(b"request_id"),
            created=number(b"created") / 1000,
            deadline=number(b"deadline") / 1000,
            started=seconds(b"started"),
            ended=seconds(b"ended"),
            expires=expires,
            expired=expires is not None and expires <= now,
            pixels=number(b"pixels"),
            attempts=number(b"attempts"),
            token=text(b"token"),
            worker=text(b"worker"),
            result=text(b"result"),
            result_bytes=number(b"result_bytes"),
            header_size=number(b"header_size"),
            cached=text(b"cached") == "1",
            primary=text(b"primary"),
            failure=JobFailure(reason, text(b"message"), text(b"field")) if reason else None,
            progress=float(fields.get(b"progress") or 0),
            position=number(b"position") if b"position" in fields else None,
        )

    def succeeded(self, details: Sequence[str]) -> Record:
        """The record as a notice says that it ended: result, its two sizes, cached, ended, expires. Else ValueError."""
        result, *numbers = details
        body, header, cached, ended, expires = map(int, numbers)
        return replace(
            self,
            state=State.SUCCEEDED,
            result=result,
            result_bytes=body,
            header_size=header,
            cached=cached == 1,
            ended=ended / 1000,
            expires=expires / 1000,
        )


def hash_fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A hash as a script gives it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
