"""The services of convlens.v1 over a JobTable. Each method yields its responses: one where the call is unary."""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any, Final

from google.protobuf.message import Message
from grpc import StatusCode

from convlens.client.model_card import ModelCard
from convlens.client.testing.cards import LIMITS, to_message
from convlens.client.testing.jobs import FakeJob, JobTable, timestamp
from convlens.client.testing.result import compute
from convlens.v1 import job_pb2, model_pb2, result_pb2, spec_pb2
from convlens.v1.file_signatures import FORMATS, HEAD_BYTES, explain_unsupported, format_of
from convlens.v1.request.fields import (
    DEFAULT_PAGE_SIZE,
    canonical_request_id,
    check_counts,
    check_job_id,
    check_offset,
    check_page,
    check_pixels,
    check_timeout,
    check_value_range,
    enum_name,
)
from convlens.v1.request.plan import JobPlan, resolve
from convlens.v1.status_error import SpecError, StatusError
from convlens.v1.visualization_pb2 import VisualizeResponse, VisualizeUnaryRequest, VisualizeUnaryResponse

VERSION: Final = metadata.version("convlens-client")
CHUNK_BYTES: Final = 1 << 20


class Services:
    """The three services. A method with a stream of requests passes each to `receive` first."""

    def __init__(self, models: Iterable[ModelCard], delay: float, receive: Callable[[str, Message], None]) -> None:
        self.jobs = JobTable()
        self.job_errors: deque[job_pb2.JobError] = deque()
        """What the next jobs end with."""
        self.delay = delay
        """Seconds that a job takes."""
        self.cards = {card.name: to_message(card) for card in sorted(models, key=lambda card: card.name)}
        self._receive = receive

    def _find_card(self, name: str, field: str) -> model_pb2.Model:
        if not self.cards:
            raise StatusError("NO_WORKERS", "no worker serves any model just now", retry_after=1.0)
        if card := self.cards.get(name or self._default_model()):
            return card
        served = ", ".join(self.cards)
        raise StatusError("MODEL_UNKNOWN", f"{field}: no model {name!r}; served are: {served}", field=field)

    def _default_model(self) -> str:
        return min(self.cards, key=lambda name: (self.cards[name].synthetic, name), default="")

    def _submit(self, request: Any, seconds: float | None = None, *, is_kept: bool = False) -> FakeJob:
        """Validate a request and add its job, which is to end within `seconds`."""
        spec: spec_pb2.JobSpec = request.spec
        request_id = canonical_request_id(request.request_id)
        job_id = (uuid.UUID(request_id) if request_id else uuid.uuid4()).hex
        card = self._find_card(spec.model, "spec.model")
        limit = check_timeout(spec, LIMITS.default_timeout.seconds, LIMITS.max_timeout.seconds)
        header, data = compute(_checked_plan(spec, card), card, spec.images)
        if isinstance(request, VisualizeUnaryRequest) and _is_large(header, data):
            raise StatusError("RESULT_TOO_LARGE", f"the result of {len(data)} bytes is too large for one message")
        failure = None
        with contextlib.suppress(IndexError):
            failure = self.job_errors.popleft()
        content = _content(spec, card.name)
        equal = None if spec.fresh or failure else self.jobs.equal(content)
        now = time.time()
        deadline = now + min(limit, math.inf if seconds is None else seconds)
        message = job_pb2.Job(
            id=job_id, state=job_pb2.JOB_STATE_QUEUED, model=card.name, images=len(spec.images),
            priority=spec.priority or spec_pb2.PRIORITY_NORMAL, create_time=timestamp(now),
            deadline=timestamp(deadline), request_id=request_id, queue_position=None if equal else 0,
        )  # fmt: skip
        starts, ends = (math.inf, max(now, equal.ends)) if equal else (now + self.delay / 2, now + self.delay)
        is_cached = equal is not None
        return self.jobs.add(
            FakeJob(message, content, header, data, starts, ends, deadline, is_cached, failure, is_kept)
        )

    # --- ModelService ---

    def ListModels(self, _request: Any, _context: Any) -> Iterator[Message]:  # noqa: N802 - the wire's names
        """Yield the cards."""
        yield model_pb2.ListModelsResponse(models=self.cards.values())

    def GetModel(self, request: model_pb2.GetModelRequest, _context: Any) -> Iterator[Message]:  # noqa: N802
        """Yield one card."""
        if not request.name:
            raise SpecError("name", "is empty; a model's name is needed")
        yield model_pb2.GetModelResponse(model=self._find_card(request.name, "name"))

    def GetServerInfo(self, _request: Any, _context: Any) -> Iterator[Message]:  # noqa: N802
        """Yield version, limits and the default model."""
        yield model_pb2.GetServerInfoResponse(version=VERSION, limits=LIMITS, default_model=self._default_model())

    # --- VisualizationService ---

    def Visualize(self, request: Any, context: Any) -> Iterator[Message]:  # noqa: N802
        """Yield a job while it is queued, then its result."""
        return self._answer(request, context, VisualizeResponse)

    def VisualizeUnary(self, request: Any, context: Any) -> Iterator[Message]:  # noqa: N802
        """Yield a result in one message."""
        return self._answer(request, context, VisualizeUnaryResponse)

    def _answer(self, request: Any, context: Any, response: Any) -> Iterator[Any]:
        """Run a job and yield its result, before that the job unless it ends at once or the call is unary."""
        job = self._submit(request, context.time_remaining())
        for change in self._watch(job, context):
            if change.state == job_pb2.JOB_STATE_QUEUED and response is not VisualizeUnaryResponse:
                yield response(job=change)
        yield from _result(job, response, is_retried=job.message.error.reason == "MODEL_CHANGED")

    def _watch(self, job: FakeJob, context: Any) -> Iterator[job_pb2.Job]:
        context.add_callback(self.jobs.wake)
        return self.jobs.changes(job, context.is_active)

    # --- JobService ---

    def _job(self, request: Any) -> FakeJob:
        return self.jobs.get(check_job_id(request.id))

    def SubmitJob(self, request: Any, _context: Any) -> Iterator[Message]:  # noqa: N802
        """Yield the new job."""
        yield job_pb2.SubmitJobResponse(job=self._submit(request, is_kept=True).message)

    def GetJob(self, request: Any, _context: Any) -> Iterator[Message]:  # noqa: N802
        """Yield a job."""
        yield job_pb2.GetJobResponse(job=self._job(request).message)

    def WatchJob(self, request: Any, context: Any) -> Iterator[Message]:  # noqa: N802
        """Yield a job now and at each change."""
        for change in self._watch(self._job(request), context):
            yield job_pb2.WatchJobResponse(job=change)

    def ListJobs(self, request: job_pb2.ListJobsRequest, _context: Any) -> Iterator[Message]:  # noqa: N802
        """Yield a page of jobs, newest first; the page token is the place in the list."""
        check_page(request)
        jobs = [job.message for job in self.jobs.newest_first() if request.state in {0, job.message.state}]
        start = int(request.page_token or 0)
        end = start + (request.page_size or DEFAULT_PAGE_SIZE)
        yield job_pb2.ListJobsResponse(jobs=jobs[start:end], next_page_token=str(end) if end < len(jobs) else "")

    def CancelJob(self, request: Any, _context: Any) -> Iterator[Message]:  # noqa: N802
        """End a job and yield it."""
        job = self._job(request)
        self.jobs.end(job, job_pb2.JOB_STATE_CANCELLED, "CANCELLED", "the job was cancelled")
        yield job_pb2.CancelJobResponse(job=job.message)

    def DeleteJob(self, request: Any, _context: Any) -> Iterator[Message]:  # noqa: N802
        """Delete an ended job."""
        self.jobs.delete(self._job(request))
        yield job_pb2.DeleteJobResponse()

    def ReadJobResult(self, request: job_pb2.ReadJobResultRequest, _context: Any) -> Iterator[Message]:  # noqa: N802
        """Yield a result from an offset on."""
        job = self._job(request)
        if not job.has_ended:
            raise StatusError("JOB_NOT_ENDED", f"job {request.id} has not ended; wait for it")
        offset = check_offset(request.offset, job.message.result_bytes)
        yield from _result(job, job_pb2.ReadJobResultResponse, offset)


def _checked_plan(spec: spec_pb2.JobSpec, card: model_pb2.Model) -> JobPlan:
    """Return what a request computes. SpecError for the first field that is not allowed."""
    check_counts(spec, LIMITS.max_images, LIMITS.max_visualizations)
    for i, image in enumerate(spec.images):
        _check_image(image, f"spec.images[{i}]")
    enum_name(spec_pb2.Priority, spec.priority, "spec.priority")
    plan = resolve(spec, card)
    for field, number, limit in (
        ("spec.targets", len(plan.targets[0]), LIMITS.max_targets),
        ("spec.visualizations", plan.result_bytes, LIMITS.max_result_bytes),
        ("spec.visualizations", plan.passes, LIMITS.max_passes),
    ):
        if number > limit:
            raise SpecError(field, f"takes {number}; allowed: {limit}")
    return plan


def _check_image(image: spec_pb2.Image, field: str) -> None:
    """Check what can be known of an image without decoding it."""
    check_value_range(image, field)
    match image.WhichOneof("source"):
        case "encoded":
            head = image.encoded[:HEAD_BYTES]
            if not format_of(head):
                why = explain_unsupported(head) or f"the bytes are no image of the formats {', '.join(FORMATS)}"
                raise SpecError(f"{field}.encoded", why)
        case "pixels":
            height, width = check_pixels(image, image.pixels.data, f"{field}.pixels")
            if height * width > LIMITS.max_image_pixels:
                raise SpecError(field, f"has {width}×{height} pixels; allowed: {LIMITS.max_image_pixels} in all")
        case _:
            raise SpecError(field, "is empty; allowed: encoded, pixels")


def _content(spec: spec_pb2.JobSpec, model: str) -> bytes:
    """Return what is equal for two requests that have the same result."""
    content = spec_pb2.JobSpec()
    content.CopyFrom(spec)
    content.model = model
    for name in ("priority", "timeout", "fresh"):
        content.ClearField(name)
    return content.SerializeToString(deterministic=True)


def _is_large(header: result_pb2.ResultHeader, data: bytes) -> bool:
    """Return whether a result is sent in chunks."""
    return header.ByteSize() + len(data) > CHUNK_BYTES


def _result(job: FakeJob, response: Any, offset: int = 0, *, is_retried: bool = False) -> Iterator[Message]:
    """Yield the responses with a job's result. StatusError where it has none; UNAVAILABLE if it `is_retried`."""
    message, error = job.message, job.message.error
    if message.HasField("error"):
        code = StatusCode.DEADLINE_EXCEEDED if message.state == job_pb2.JOB_STATE_EXPIRED else None
        code = StatusCode.UNAVAILABLE if is_retried else code
        metadata = {"job_id": message.id, "job_state": job_pb2.JobState.Name(message.state).removeprefix("JOB_STATE_")}
        raise StatusError(error.reason, error.message, code=code, field=error.field, metadata=metadata)
    if message.result_expired:
        raise StatusError(
            "RESULT_EXPIRED", f"the result of job {message.id} has expired", metadata={"job_id": message.id}
        )
    header = result_pb2.ResultHeader(job_id=message.id, cached=message.cached)
    header.MergeFrom(job.header)
    if not offset and not _is_large(job.header, job.data):
        header.data = job.data
        offset = len(job.data)
    yield response(header=header)
    for start in range(offset, len(job.data), CHUNK_BYTES):
        yield response(chunk=result_pb2.ResultChunk(offset=start, data=job.data[start : start + CHUNK_BYTES]))
