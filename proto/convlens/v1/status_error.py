"""Errors of the API: a reason, a message, and what else there is to say, as a google.rpc.Status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from convlens.v1.reasons import Reason, code_of

DOMAIN: Final = "convlens"
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

    def __str__(self) -> str:
        return self.message

    def without_traceback(self) -> StatusError:
        """Drop traceback, cause and context, whose frames would keep a request's images in memory."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


def _truncate(text: str, limit: int) -> str:
    """Replace the middle of a long text by an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


class SpecError(StatusError):
    """A field of a request whose value is not allowed."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(Reason.INVALID_FIELD, f"{field}: {description}", field=field)
