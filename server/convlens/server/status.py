"""Maps exceptions to google.rpc.Status with ErrorInfo and, where they fit, BadRequest, QuotaFailure and RetryInfo."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from convlens.jobs.payloads.store import PayloadGone, StoreFull
from convlens.jobs.queue.admission import AdmissionRejected
from convlens.jobs.queue.new_job import RequestIdReused
from convlens.jobs.queue.producer import JobNotFinished
from convlens.jobs.queue.record import JobFailure, Record, State
from convlens.jobs.queue.scripts import ScriptFailed
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.v1.reasons import Reason, code_of
from convlens.v1.request.fields import SpecError

log = logging.getLogger(__name__)

DOMAIN: Final = "convlens"
RETRY_SECONDS: Final = 1.0
"""The delay in RetryInfo where nothing better is known."""
MAX_MESSAGE: Final = 600
"""Characters. The message is in the trailers up to three times, and clients accept 8 KiB of them."""
MAX_VALUE: Final = 120
"""Characters of a field's name or a metadata value."""


class StatusError(Exception):
    """An error to be sent to the caller as a google.rpc.Status.

    `reason` is a Reason, or that of a failed job, which a newer worker may have written; `code` by default that of the
    reason. `field` is the field of the request at fault, `retry_after` the delay in seconds after which a retry makes
    sense, `quota` the exceeded bound: "max_jobs", "max_jobs/TENANT" for a tenant's share, or "tenant_rate/TENANT".
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        field: str = "",
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
        quota: str = "",
    ) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.code = code or code_of(reason)
        self.message, self.field = _truncate(message, MAX_MESSAGE), _truncate(field, MAX_VALUE)
        self.metadata = {name: _truncate(value, MAX_VALUE) for name, value in (metadata or {}).items()}
        self.retry_after = retry_after
        self.quota = quota

    def to_status(self) -> status_pb2.Status:
        """Build the google.rpc.Status."""
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

    def without_traceback(self) -> StatusError:
        """Drop traceback, cause and context, whose frames would keep a request's images in memory."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


def _truncate(text: str, limit: int) -> str:
    """Replace the middle of a long text by an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


def invalid_field(name: str, description: str) -> StatusError:
    """Describe a field whose value is not allowed."""
    return StatusError(Reason.INVALID_FIELD, f"{name}: {description}", field=name)


def unknown_job(job_id: str) -> StatusError:
    """Describe a job id without a record."""
    return StatusError(Reason.JOB_UNKNOWN, f"there is no job {job_id!r}", metadata={"job_id": job_id})


def result_expired(record: Record) -> StatusError:
    """Describe a result that has been deleted."""
    message = f"the result of job {record.id} has expired; submit it again"
    return StatusError(Reason.RESULT_EXPIRED, message, metadata={"job_id": record.id})


_CODES: Final = {
    State.CANCELLED: grpc.StatusCode.CANCELLED,
    State.EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Of jobs that ended in these states, whatever the reason."""


def ended_without_result(record: Record, code: grpc.StatusCode | None = None) -> StatusError:
    """Describe a job that is FAILED, CANCELLED or EXPIRED."""
    failure = record.failure or JobFailure(Reason.INTERNAL, "the job ended without a reason")
    metadata = {"job_id": record.id, "job_state": record.state.name}
    code = code or _CODES.get(record.state)
    return StatusError(failure.reason, failure.message, code=code, field=failure.field, metadata=metadata)


def _admission_rejected(error: AdmissionRejected) -> StatusError:
    """Describe a reached bound or rate. A job that exceeds the bound by itself gets no RetryInfo."""
    quota = f"{error.limit}/{error.tenant}".rstrip("/")
    if error.never:
        return StatusError(Reason.NEVER_FITS, str(error), field="spec", quota=quota)
    reason = Reason.RATE_EXCEEDED if error.limit == "tenant_rate" else Reason.QUEUE_FULL
    return StatusError(reason, str(error), retry_after=error.retry_after, quota=quota)


def to_status_error(error: Exception) -> StatusError:
    """Map any exception of a call. An unexpected one is logged; its text is not sent."""
    match error:
        case StatusError():
            return error
        case SpecError():
            return invalid_field(error.field, error.description)
        case RequestIdReused():
            return StatusError(Reason.REQUEST_ID_REUSED, f"request_id: {error}", field="request_id")
        case AdmissionRejected():
            return _admission_rejected(error)
        case StoreFull():
            return StatusError(Reason.STORE_FULL, str(error), retry_after=RETRY_SECONDS)
        case PayloadGone():
            return StatusError(Reason.PAYLOAD_GONE, str(error))
        case JobNotFinished():
            return StatusError(Reason.JOB_NOT_ENDED, str(error))
        case RedisUnavailable() if not isinstance(error, ScriptFailed):
            log.warning("redis: %s", error)
            return StatusError(Reason.REDIS_UNAVAILABLE, "the job store cannot be reached just now")
        case _:
            log.error("unexpected error", exc_info=error)
            return StatusError(Reason.INTERNAL, "an unforeseen error; the server's log has it")
