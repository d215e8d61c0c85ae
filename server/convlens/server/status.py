"""Maps exceptions to the errors that callers get."""

from __future__ import annotations

import logging
from typing import Final

import grpc

from convlens.jobs.payloads.store import PayloadGone, StoreFull
from convlens.jobs.queue.admission import AdmissionRejected
from convlens.jobs.queue.new_job import RequestIdReused
from convlens.jobs.queue.producer import JobNotFinished
from convlens.jobs.queue.record import JobFailure, Record, State
from convlens.jobs.queue.scripts import ScriptFailed
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.v1.reasons import Reason
from convlens.v1.status_error import StatusError

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0
"""The delay in RetryInfo where nothing better is known."""


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
