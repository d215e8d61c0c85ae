"""The one place that makes an exception a google.rpc.Status: code, message, ErrorInfo, and details as fit."""

from __future__ import annotations

import dataclasses
import logging
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from convlens.jobs.payloads.store import PayloadGone, StoreFull
from convlens.jobs.queue.admission import Full
from convlens.jobs.queue.ledger import JobLive
from convlens.jobs.queue.new_job import RequestIdReused
from convlens.jobs.queue.record import JobFailure, Record, State
from convlens.jobs.queue.scripts import ScriptFailed
from convlens.jobs.request.fields import SpecError
from convlens.jobs.runtime.redis_client import LedgerUnavailable

log = logging.getLogger(__name__)

DOMAIN: Final = "convlens"
MODEL_CHANGED: Final = "MODEL_CHANGED"
"""Why a job FAILED whose weights are not served any more; the same request makes it anew."""
RETRY_SECONDS: Final = 1.0
"""What a refused caller is asked to wait."""


@dataclasses.dataclass(eq=False)
class Refusal(Exception):
    """A request refused, with all that its caller is told."""

    code: grpc.StatusCode
    reason: str
    message: str
    field: str = ""
    retry_after: float | None = None
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    quota: str = ""
    """The bound that has no room: "max_jobs", or "max_jobs/TENANT" for a tenant's share; or "tenant_rate/TENANT"."""

    def __post_init__(self) -> None:
        self.message, self.field = _short(self.message, 600), _short(self.field, 120)
        self.metadata = {name: _short(value, 120) for name, value in self.metadata.items()}

    def status(self) -> status_pb2.Status:
        """As a google.rpc.Status."""
        details = [error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)]
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.quota:
            violation = error_details_pb2.QuotaFailure.Violation(subject=self.quota, description=self.message)
            details.append(error_details_pb2.QuotaFailure(violations=[violation]))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return status


def _short(text: str, most: int) -> str:
    """`text`, its middle left out where it is long: it stands three times in 8 KiB of trailers."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


def invalid(name: str, description: str) -> Refusal:
    """A field that cannot be granted."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", f"{name}: {description}", field=name)


def unknown_job(job_id: str) -> Refusal:
    """An id that was never known, or is long forgotten."""
    return Refusal(grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN", f"there is no job {job_id!r}", metadata={"job_id": job_id})


def result_expired(record: Record) -> Refusal:
    """A result whose time is over."""
    return Refusal(
        grpc.StatusCode.NOT_FOUND,
        "RESULT_EXPIRED",
        f"the result of job {record.id} has expired; submit it again",
        metadata={"job_id": record.id},
    )


_FAILED: Final[dict[str, grpc.StatusCode]] = {
    "IMAGE_UNREADABLE": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "RESULT_STORE_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    MODEL_CHANGED: grpc.StatusCode.ABORTED,
    "PAYLOAD_GONE": grpc.StatusCode.ABORTED,
    "ATTEMPTS_EXHAUSTED": grpc.StatusCode.ABORTED,
}
_ENDED: Final = {
    State.CANCELLED: grpc.StatusCode.CANCELLED,
    State.EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def ended_without_result(record: Record) -> Refusal:
    """What a caller is told who waited for a job that FAILED, or was CANCELLED or EXPIRED."""
    failure = record.failure or JobFailure("INTERNAL", "the job ended without a reason")
    code = _ENDED.get(record.state) or _FAILED.get(failure.reason, grpc.StatusCode.INTERNAL)
    metadata = {"job_id": record.id, "job_state": record.state.name}
    return Refusal(code, failure.reason, failure.message, field=failure.field, metadata=metadata)


class ModelChanged(Refusal):
    """A call that waited for a job which ended MODEL_CHANGED, and is to be made again."""


def model_changed(record: Record) -> ModelChanged:
    """UNAVAILABLE rather than what ended_without_result() makes of it, since only the call is to be made again."""
    refusal = ended_without_result(record)
    return ModelChanged(grpc.StatusCode.UNAVAILABLE, refusal.reason, refusal.message, metadata=refusal.metadata)


def _full(error: Full) -> Refusal:
    """A bound or a rate is reached; a job that is larger than the bound itself is not asked to come again."""
    reason = "RATE_EXCEEDED" if error.limit == "tenant_rate" else "QUEUE_FULL"
    code = grpc.StatusCode.INVALID_ARGUMENT if error.never else grpc.StatusCode.RESOURCE_EXHAUSTED
    return Refusal(
        code,
        "NEVER_FITS" if error.never else reason,
        str(error),
        field="spec" if error.never else "",
        retry_after=None if error.never else error.retry_after,
        quota=f"{error.limit}/{error.tenant}".rstrip("/"),
    )


def without_frames(refusal: Refusal) -> Refusal:
    """The refusal without what it was raised from and where: the memory of those frames lives as long as it does."""
    refusal.__context__ = refusal.__cause__ = None
    return refusal.with_traceback(None)


def refusal_of(error: Exception) -> Refusal:
    """Every exception a call may end with, as what its caller is told. The unforeseen is logged, not told."""
    match error:
        case Refusal():
            return error
        case SpecError():
            return invalid(error.field, error.description)
        case RequestIdReused():
            return Refusal(
                grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", f"request_id: {error}", field="request_id"
            )
        case Full():
            return _full(error)
        case StoreFull():
            return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", str(error), retry_after=RETRY_SECONDS)
        case PayloadGone():
            return Refusal(grpc.StatusCode.ABORTED, "PAYLOAD_GONE", str(error))
        case JobLive():
            return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_ENDED", str(error))
        case LedgerUnavailable() if not isinstance(error, ScriptFailed):
            log.warning("redis: %s", error)
            return Refusal(grpc.StatusCode.UNAVAILABLE, "REDIS_UNAVAILABLE", "the job store cannot be reached just now")
        case _:
            log.error("unforeseen", exc_info=error)
            return Refusal(grpc.StatusCode.INTERNAL, "INTERNAL", "an unforeseen error; the server's log has it")
