"""Errors of the fake server, as google.rpc.Status."""

from __future__ import annotations

from typing import Final

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from convlens.v1 import job_pb2
from convlens.v1.reasons import Reason, code_of
from convlens.v1.request.fields import SpecError

RETRIED: Final = {"QUEUE_FULL", "RATE_EXCEEDED", "SERVER_FULL", "STORE_FULL", "NO_WORKERS"}
"""Reasons that the real server sends with the delay of a retry."""


class StatusError(Exception):
    """An error that ends a call; of a job that ended without a result, `job` says which."""

    def __init__(
        self, reason: str, message: str, field: str = "", retry_after: float | None = None,
        job: job_pb2.Job | None = None, code: StatusCode | None = None,
    ) -> None:  # fmt: skip
        super().__init__(reason, message)
        status_code = code or code_of(reason)
        self.status = status_pb2.Status(code=status_code.value[0], message=message)
        metadata = {"job_id": job.id} if job else {}
        if job and job.HasField("error"):
            metadata["job_state"] = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
        details = [error_details_pb2.ErrorInfo(reason=reason, domain="convlens", metadata=metadata)]
        if field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if retry_after is not None:
            details.append(error_details_pb2.RetryInfo())
            details[-1].retry_delay.FromNanoseconds(int(retry_after * 1e9))
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            self.status.details.append(packed)


def to_status_error(error: StatusError | SpecError) -> StatusError:
    """Return the error that ends a call; of a field that is not allowed, INVALID_FIELD."""
    return error if isinstance(error, StatusError) else StatusError("INVALID_FIELD", str(error), error.field)


def check_reason(reason: str) -> None:
    """Raise ValueError for a reason that the real server does not have."""
    if reason not in Reason.__members__:
        raise ValueError(f"no reason {reason!r}; allowed: {', '.join(Reason)}")
