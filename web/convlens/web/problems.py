"""Errors as problem details (RFC 9457): one table from the SDK's errors to HTTP status codes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from convlens import client as sdk

MEDIA_TYPE: Final = "application/problem+json"
CLIENT_CLOSED: Final = 499
"""The caller went away, or the job was cancelled. Not in the registry; nginx's number."""

STATUS_BY_REASON: Final = {
    "REQUEST_TOO_LARGE": 413,
    "NEVER_FITS": 413,
    "IMAGE_UNREADABLE": 422,
    "SERVER_UNTRUSTED": 502,
}
"""The reasons whose HTTP status is another than that of their error's type."""
STATUS_BY_TYPE: Final[dict[type[sdk.ConvlensError], int]] = {
    sdk.InvalidArgument: 400,
    sdk.Unauthenticated: 401,
    sdk.PermissionDenied: 403,
    sdk.NotFound: 404,
    sdk.FailedPrecondition: 409,
    sdk.Overloaded: 429,
    sdk.Cancelled: CLIENT_CLOSED,
    sdk.JobFailed: 500,
    sdk.DataCorrupted: 502,
    sdk.Unavailable: 503,
    sdk.DeadlineExceeded: 504,
}


class Problem(Exception):
    """An error with its HTTP status. The fields are those of its JSON."""

    def __init__(
        self, status: int, reason: str, detail: str, *, field: str = "", job_id: str = "",
        retry_after: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = _encodable(detail)
        self.field = _encodable(field)
        self.job_id = job_id
        self.retry_after = retry_after

    @classmethod
    def from_error(cls, error: sdk.ConvlensError) -> Problem:
        """Return the problem of an error of the SDK."""
        by_type = next((status for kind, status in STATUS_BY_TYPE.items() if isinstance(error, kind)), 500)
        status = STATUS_BY_REASON.get(error.reason, by_type)
        reason = error.reason or _reason_of(error)
        return cls(
            status, reason, error.message, field=error.field, job_id=error.job_id, retry_after=error.retry_after
        )  # fmt: skip

    def content(self) -> dict[str, Any]:
        """Return the JSON."""
        return {
            "type": "about:blank", "title": _title(self.status), "status": self.status, "detail": self.detail,
            "reason": self.reason, "field": self.field or None, "job_id": self.job_id or None,
            "retry_after": self.retry_after,
        }  # fmt: skip

    def response(self) -> JSONResponse:
        """Return the response."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status == HTTPStatus.REQUEST_TIMEOUT:
            headers["Connection"] = "close"  # the rest of the body may still come
        return JSONResponse(self.content(), self.status, headers, MEDIA_TYPE)


def _encodable(text: str) -> str:
    """Return text without lone surrogates, which a request may contain and UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def _title(status: int) -> str:
    return "Client Closed Request" if status == CLIENT_CLOSED else HTTPStatus(status).phrase


def _reason_of(error: sdk.ConvlensError) -> str:
    """Return the reason of an error for which neither server nor SDK gives one, such as DEADLINE_EXCEEDED."""
    if isinstance(error, sdk.InvalidArgument):
        return "INVALID_FIELD"
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).upper()


def add_handlers(app: FastAPI, headers: Mapping[str, str]) -> None:
    """Make every error of the application a problem, those of FastAPI itself included.

    `headers` are those of an unexpected error, whose response no middleware passes.
    """

    @app.exception_handler(Problem)
    async def handle_problem(_: Request, problem: Problem) -> JSONResponse:
        return problem.response()

    @app.exception_handler(sdk.ConvlensError)
    async def handle_sdk_error(_: Request, error: sdk.ConvlensError) -> JSONResponse:
        return Problem.from_error(error).response()

    @app.exception_handler(HTTPException)
    async def handle_http_exception(_: Request, error: HTTPException) -> JSONResponse:
        response = Problem(error.status_code, HTTPStatus(error.status_code).name, error.detail).response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        return Problem(422, "INVALID_FIELD", f"{field}: {first['msg']}", field=field).response()

    @app.exception_handler(Exception)
    async def handle_unexpected(_: Request, __: Exception) -> JSONResponse:  # Starlette logs it
        response = Problem(500, "INTERNAL", "an unexpected error in the gateway; its log has the cause").response()
        response.headers.update(headers)
        return response
