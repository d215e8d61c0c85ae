"""Errors of the SDK, one type per cause, with what the server says: reason, field, job id, request id."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2


class ConvlensError(Exception):
    """Base of all errors of the SDK."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        field: str = "",
        job_id: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        """UPPER_SNAKE, stable; empty if the server gives none."""
        self.field = field
        """The field of the request at fault; empty if it is none's."""
        self.job_id = job_id
        self.request_id = request_id
        self.retry_after = retry_after
        """Seconds after which to try again; None if the server does not say."""

    def __str__(self) -> str:
        facts = {"reason": self.reason, "field": self.field, "job": self.job_id, "request": self.request_id}
        extra = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
        return f"{self.message} ({extra})" if extra else self.message


class InvalidArgument(ConvlensError, ValueError):
    """A field of the request is invalid; `field` names it."""


class MissingExtra(ConvlensError, ImportError):
    """A feature needs packages that are not installed; the message gives the command that installs them."""

    def __init__(self, message: str, *, name: str = "") -> None:
        super().__init__(message)
        self.name = name
        """The extra of convlens-client, such as figures."""


class NotFound(ConvlensError, LookupError):
    """No such job or model, or a result that has expired (reason RESULT_EXPIRED)."""


class Unauthenticated(ConvlensError, PermissionError):
    """The server does not know the token, or there is none (reasons TOKEN_UNKNOWN, TOKEN_MISSING); or this client
    does not know the server: its certificate is not vouched for, or another's (reason SERVER_UNTRUSTED).
    """


class PermissionDenied(ConvlensError, PermissionError):
    """The token is known and may not do this; the message names the role needed."""


class FailedPrecondition(ConvlensError):
    """The job is not in the state that the call needs."""


class Overloaded(ConvlensError):
    """The service is at its limit; `retry_after` says when to try again."""


class DeadlineExceeded(ConvlensError, TimeoutError):
    """The time limit passed before the job ended."""


class Unavailable(ConvlensError, ConnectionError):
    """The service cannot be reached, or has no worker, store or model at the moment."""


class Cancelled(ConvlensError):
    """The job or the call was cancelled."""


class ClientClosed(Cancelled):
    """This side ended the call: its client was closed, or the map() it belongs to was left."""

    def __init__(self, message: str = "the call was cancelled: its client was closed") -> None:
        super().__init__(message, reason="CLIENT_CLOSED")


class JobFailed(ConvlensError):
    """The job ended without a result."""


class DataCorrupted(ConvlensError):
    """The bytes of a result do not have the announced length or checksum, or cannot be parsed."""


_TYPES: Final[dict[grpc.StatusCode, type[ConvlensError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.ABORTED: JobFailed,
}
_TOO_LARGE: Final = re.compile(r"[Rr]eceived message larger than max \((\d+) vs\. (\d+)\)")
"""gRPC's own text for a request that is far larger than the server accepts, or that is sent to an older server."""
_UNTRUSTED: Final = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
"""gRPC's texts, with UNAVAILABLE, for a bad certificate, which no retry mends."""


def wait_timeout_error(job_id: str, timeout: float) -> DeadlineExceeded:
    """Return the error of a job that has not ended within the time its caller waits."""
    return DeadlineExceeded(f"the job had not ended after {timeout:g} s", reason="WAIT_TIMEOUT", job_id=job_id)


def check_process(process: int, method: str) -> None:
    """Raise ConvlensError in a fork of `process`, in which an iterator's calls are not under way."""
    if os.getpid() != process:
        raise ConvlensError(f"the iterator of {method}() belongs to the process that began it")


def from_rpc(error: grpc.RpcError, target: str, request_id: str = "") -> ConvlensError:
    """Return the typed error of a failed call to `target`."""
    code, message = error.code(), error.details() or ""
    status = _details(error)
    if status is not None:
        return from_status(status, request_id)
    if code is grpc.StatusCode.CANCELLED:  # a server that shuts down; a cancelled job has details
        return Unavailable(f"the server at {target} ended the call: {message}", request_id=request_id)
    if code is grpc.StatusCode.INTERNAL and "deserializing" in message:
        return DataCorrupted(f"a response of the server at {target} cannot be parsed: {message}", request_id=request_id)
    if code is grpc.StatusCode.UNAVAILABLE and any(sign in message for sign in _UNTRUSTED):
        message = f"the certificate of the server at {target} is not to be trusted: {message}"
        return Unauthenticated(message, reason="SERVER_UNTRUSTED", request_id=request_id)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (sizes := _TOO_LARGE.search(message)):
        message = f"request: is {sizes[1]} bytes; allowed by the server: {sizes[2]}"
        return InvalidArgument(message, reason="REQUEST_TOO_LARGE", field="request", request_id=request_id)
    if code is grpc.StatusCode.UNAVAILABLE:
        message = f"no Convlens server answers at {target}: {message}"
    return _TYPES.get(code, ConvlensError)(message or code.name, request_id=request_id)


def from_status(status: status_pb2.Status, request_id: str = "") -> ConvlensError:
    """Return the typed error of a google.rpc.Status."""
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, bad, retry):
            detail.Unpack(message)
    code = next((code for code in grpc.StatusCode if code.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    kind = _TYPES.get(code, ConvlensError)
    if info.metadata.get("job_state") == "FAILED" and kind is ConvlensError:
        kind = JobFailed
    return kind(
        status.message,
        reason=info.reason,
        field=bad.field_violations[0].field if bad.field_violations else "",
        job_id=info.metadata.get("job_id", ""),
        request_id=request_id,
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
    )


def _details(error: Any) -> status_pb2.Status | None:
    """Return the google.rpc.Status in the trailers of a failed call; None if there is none that can be parsed."""
    trailing: Iterable[tuple[str, bytes]] = error.trailing_metadata() or ()
    details = dict(trailing).get("grpc-status-details-bin")
    try:
        return None if details is None else status_pb2.Status.FromString(details)
    except DecodeError:
        return None
