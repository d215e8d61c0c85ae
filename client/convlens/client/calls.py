"""What both clients do alike, without any input or output: requests, retries, the parts of answers."""

from __future__ import annotations

import itertools
import math
import os
import random
import reprlib
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from convlens.client.arrays import ValueRange
from convlens.client.connection import Connection
from convlens.client.errors import (
    ConvlensError,
    DataCorrupted,
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    Unavailable,
    from_rpc,
)
from convlens.client.images import Images, Outgoing, SentImage, pack
from convlens.client.options import Visualization, messages
from convlens.client.results import Assembler, Request, Result
from convlens.client.targets import Targets, targets_message
from convlens.client.timeouts import DEFAULT_TIMEOUT
from convlens.client.unreachable import NO_REPLY, never_connected
from convlens.v1 import framing, job_pb2, result_pb2, spec_pb2, visualization_pb2

SAME_TRY: Final = 1.0
"""Seconds within which failures to connect are those of the addresses of one name."""
PRIORITIES: Final = {
    "high": spec_pb2.PRIORITY_HIGH,
    "normal": spec_pb2.PRIORITY_NORMAL,
    "low": spec_pb2.PRIORITY_LOW,
}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A VisualizeRequest or SubmitJobRequest, serialized: both have the same fields."""

    serialized: bytes
    images: Sequence[SentImage]
    """Views of it."""
    spec: spec_pb2.JobSpec
    """All of its spec but the images."""
    request_id: str

    @property
    def large(self) -> bool:
        """True where the result may well be too large for one message."""
        return any(it.WhichOneof("method") == "activations" for it in self.spec.visualizations)


def job_request(
    images: Images,
    visualizations: Iterable[Visualization],
    *,
    model: str,
    target: Targets | Sequence[spec_pb2.Target],
    scored_layer: str,
    predictions: int | None,
    request_id: str | None,
    priority: str,
    fresh: bool,
    timeout: float | None,
    value_range: ValueRange | None = None,
) -> JobRequest:
    """A job as the wire has it, which may take `timeout` seconds. InvalidArgument for what cannot even be sent."""
    spec = job_spec(
        visualizations, model=model, scored_layer=scored_layer, predictions=predictions, priority=priority, fresh=fresh
    )
    outgoing = images if isinstance(images, Outgoing) else Outgoing(pack(images, value_range))
    return _finished(outgoing, spec, target, request_id, timeout)


def job_spec(
    visualizations: Iterable[Visualization],
    *,
    model: str,
    scored_layer: str,
    predictions: int | None,
    priority: str,
    fresh: bool,
) -> spec_pb2.JobSpec:
    """What a job asks for, but for images, targets and times. InvalidArgument for what cannot even be sent."""
    if not isinstance(priority, str) or priority not in PRIORITIES:
        raise InvalidArgument(f"no priority {priority!r}; allowed: {', '.join(PRIORITIES)}", field="priority")
    spec = spec_pb2.JobSpec(visualizations=messages(visualizations), priority=PRIORITIES[priority])
    for field, value, allowed in (
        ("model", model, "a model's name"),
        ("scored_layer", scored_layer, "a layer's name"),
        ("predictions", predictions, "a whole number, or None for as many as come for free"),
        ("fresh", fresh, "True or False"),
    ):
        try:
            if value is not None:
                setattr(spec, field, value)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"{field} is {reprlib.repr(value)}; allowed: {allowed}", field=field) from error
    return spec


def _finished(
    outgoing: Outgoing,
    spec: spec_pb2.JobSpec,
    target: Targets | Sequence[spec_pb2.Target],
    request_id: str | None,
    timeout: float | None,
) -> JobRequest:
    """The job of `outgoing` that `spec`, which it takes, asks for."""
    if not isinstance(request_id, str | None):
        raise InvalidArgument(f"request_id is {request_id!r}; allowed: a UUID as text", field="request_id")
    spec.targets.extend(targets_message(target, len(outgoing)))
    if timeout is not None:
        spec.timeout.FromNanoseconds(max(1, int(timeout * 1e9)))
    request_id = request_id or str(uuid.uuid4())  # one for all attempts of this call
    serialized = outgoing.finished(spec.SerializeToString(), *framing.field(_REQUEST_ID, request_id.encode()))
    return JobRequest(serialized, outgoing.images, spec, request_id)


@dataclass(frozen=True, slots=True)
class MapJobs:
    """What the jobs of one map() have in common."""

    spec: spec_pb2.JobSpec
    """Without images, targets and times."""
    target: Any
    """That of all images, where they share one."""
    seconds: float
    """For each."""

    def request(self, images: Outgoing, targets: list[spec_pb2.Target], limit: float | None) -> JobRequest:
        """The job of `images` with `targets`, one each or none, which may take `limit` seconds."""
        spec = spec_pb2.JobSpec()
        spec.CopyFrom(self.spec)
        return _finished(images, spec, targets or self.target, None, limit)


_REQUEST_ID: Final = visualization_pb2.VisualizeRequest.DESCRIPTOR.fields_by_name["request_id"].number


def job_state(name: str | None) -> job_pb2.JobState.ValueType:
    """The state of a name such as queued; all of them for none. InvalidArgument for another name."""
    states = {full.removeprefix("JOB_STATE_").lower(): number for full, number in job_pb2.JobState.items() if number}
    if name and name.lower() not in states:
        raise InvalidArgument(f"no state {name!r}; allowed: {', '.join(states)}", field="state")
    return states[name.lower()] if name else job_pb2.JOB_STATE_UNSPECIFIED


def job_limit(seconds: float, longest: float) -> float | None:
    """What a job is told to take at most, whose caller has so many seconds, by a server that allows `longest`.

    None leaves it to the server, which allows DEFAULT_TIMEOUT.
    """
    return min(seconds, longest) if seconds > DEFAULT_TIMEOUT and longest else None


class Attempts:
    """When to try again: unreachable with growing delays, overloaded as the server says, within the deadline.

    A server that was never reached is given up earlier, after the connection's connect_timeout.
    """

    def __init__(self, connection: Connection, timeout: float, request_id: str = "") -> None:
        self._connection = connection
        self._began = time.monotonic()
        self._ends = self._began + timeout
        self._request_id = request_id
        self._details = ""
        """What gRPC said of the connection that there is not."""
        self._seen = 0.0
        """When it did."""
        self._told: Unavailable | Overloaded | None = None
        self._growing = (min(2.0, 0.1 * 2**n) * random.uniform(0.5, 1.0) for n in itertools.count())  # noqa: S311

    def remaining(self) -> float | None:
        """Seconds left for the next attempt; None for no limit."""
        return None if math.isinf(self._ends) else max(0.001, self._ends - time.monotonic())

    def delay_after(self, error: grpc.RpcError, is_connected: Callable[[], bool] = lambda: True) -> float:
        """Seconds to wait before the next attempt; raises the typed error when there is to be none.

        `is_connected` tells of the channel's connection as it is now.
        """
        typed = from_rpc(error, self._connection.target, self._request_id)
        is_silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not typed.reason
        if self._told and is_silent:
            raise self._told from error  # time ran out while it was tried again, for this reason
        if isinstance(typed, Unavailable) and never_connected(error):
            typed = self._unreachable(error.details() or "")
        elif is_silent and not self._connection.reached and not is_connected():
            typed = self._unreachable(NO_REPLY)
        else:
            self._connection.answered()
        if not isinstance(typed, Unavailable | Overloaded):
            raise typed from error
        self._told = typed
        self._connection.trouble = self._connection.trouble or typed.message
        if isinstance(typed, Overloaded) and typed.retry_after is None:
            raise typed from error
        delay = max(next(self._growing), (typed.retry_after or 0) * random.uniform(1.0, 1.2))  # noqa: S311
        left = self._ends - time.monotonic()
        if not self._connection.reached:
            left = min(left, self._began + self._connection.connect_timeout - time.monotonic())
            delay = min(delay, left)  # the last attempt is at the end, since a server may be about to start
        if left <= 0 or delay > left:
            raise typed from error
        return delay

    def _unreachable(self, details: str) -> Unavailable:
        """The error of an attempt that got no connection."""
        caller, now = self._connection.caller, time.monotonic()
        is_refused = "Connection refused" in details  # of a name's addresses, where nothing listens says least
        if not (is_refused and self._details and now - self._seen < SAME_TRY):
            self._details, self._seen = details, now
        details = self._details
        self._connection.trouble = f"no answer from {caller.address.target} yet ({caller.cause(details).what})"
        return caller.unreachable(details, time.monotonic() - self._began, self._request_id)


def _reader(response: Any) -> Callable[[bytes], tuple[Any, framing.Data]]:
    """What reads a serialized part of an answer: the message without the tensors' bytes, and these, where they are."""
    parts: dict[str, Any] = {"header": result_pb2.ResultHeader, "chunk": result_pb2.ResultChunk}
    fields = response.DESCRIPTOR.fields_by_name
    tree = {
        fields[name].number: {part.DESCRIPTOR.fields_by_name["data"].number: None}
        for name, part in parts.items()
        if name in fields
    }

    def read(received: bytes) -> tuple[Any, framing.Data]:
        pieces, data = framing.lifted(memoryview(received), tree)
        return response.FromString(framing.message(pieces)), data[-1] if data else b""

    return read


_UNARY, _VISUALIZE, _READ_RESULT = map(
    _reader,
    (visualization_pb2.VisualizeUnaryResponse, visualization_pb2.VisualizeResponse, job_pb2.ReadJobResultResponse),
)


class Answer:
    """One visualize call over all its attempts: what to call next, and what its parts make."""

    def __init__(self, connection: Connection, request: JobRequest | None, timeout: float, job_id: str = "") -> None:
        request_id = request.request_id if request else ""
        self._connection = connection
        self._attempts = Attempts(connection, timeout, request_id)
        self._request = request
        self._assembler = Assembler(Request(request.images, request_id) if request else Request())
        self._job_id = job_id
        self._began = bool(job_id)
        self._streamed = request is None or request.large
        self.unary = False
        """Whether the next call has one answer, not a stream of them."""

    def next_call(self, stubs: Any) -> tuple[Any, Any, float | None]:
        """The method, its request and the seconds left, None for no limit: the whole job, or the rest of its result."""
        self.unary = False
        left = self._attempts.remaining()
        if self._began or self._request is None:
            request = job_pb2.ReadJobResultRequest(id=self._job_id, offset=self._assembler.offset)
            self._read = _READ_RESULT
            return stubs.read_result_bytes, request, left
        sent = self._request.serialized
        if not self._streamed and len(self._request.images) == 1:
            self.unary = True
            self._read = _UNARY
            return stubs.visualize_unary_bytes, sent, left
        self._read = _VISUALIZE
        return stubs.visualize_bytes, sent, left

    def delay_after(self, error: grpc.RpcError, is_connected: Callable[[], bool] = lambda: True) -> float:
        """As of Attempts."""
        reason = from_rpc(error, self._connection.target).reason
        if self.unary and (reason == "RESULT_TOO_LARGE" or error.code() is grpc.StatusCode.UNIMPLEMENTED):
            self._streamed = True  # also by a server that is too old for anything else
        else:
            return self._attempts.delay_after(error, is_connected)
        return 0.0

    def take(self, received: bytes) -> None:
        """Takes one part of the answer, serialized. DataCorrupted when it is none, or not the next one."""
        self._connection.answered()
        try:
            part, data = self._read(received)
        except (ValueError, DecodeError) as error:
            raise DataCorrupted(f"a part of the answer cannot be read: {error}", job_id=self._job_id) from error
        match "header" if self.unary else part.WhichOneof("part"):
            case "job":
                self._job_id = part.job.id
            case "header":
                self._began = True
                self._job_id = part.header.job_id
                self._assembler.header(part.header, data)
            case "chunk":
                self._assembler.chunk(part.chunk.offset, data)

    def result(self) -> Result:
        """The result, whole and verified."""
        return self._assembler.result()


def ended(job: job_pb2.Job) -> bool:
    """True for a job in a final state."""
    return job.state >= job_pb2.JOB_STATE_SUCCEEDED


def moved(before: job_pb2.Job, now: job_pb2.Job) -> bool:
    """True when there is something to tell of a job."""
    return (before.state, before.attempts, before.progress) != (now.state, now.attempts, now.progress)


def check_process(process: int, method: str) -> None:
    """Raises ConvlensError in a fork of `process`, where an iterator's calls are not under way."""
    if os.getpid() != process:
        raise ConvlensError(f"the iterator of {method}() belongs to the process that began it")


def too_late(job_id: str, timeout: float) -> DeadlineExceeded:
    """What wait() raises."""
    return DeadlineExceeded(f"the job had not ended after {timeout:g} s", reason="WAIT_TIMEOUT", job_id=job_id)
