"""Errors over HTTP: every row of the table, as a problem with the server's reason, field and delay."""

from __future__ import annotations

import pytest
from gateways import gateway, png
from token_reader import token_reader

from convlens import client as sdk
from convlens.client.testing import serve
from convlens.v1.reasons import Reason
from convlens.web.problems import STATUS_BY_REASON, STATUS_BY_TYPE, Problem

STATUS_BY_CODE = {
    "INVALID_ARGUMENT": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409, "RESOURCE_EXHAUSTED": 429, "CANCELLED": 499, "ABORTED": 500, "INTERNAL": 500,
    "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
"""The HTTP status of each gRPC status, but for some reasons."""
EXCEPTIONS = {"REQUEST_TOO_LARGE": 413, "NEVER_FITS": 413, "IMAGE_UNREADABLE": 422}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_status(http, fake, reason):
    fake.fail_next(reason, "why", field="spec.images[0]", retry_after=2, method="GetServerInfo", times=1)
    fake.fail_next(reason, "why", field="spec.images[0]", retry_after=1e4, method="ListJobs", times=1)
    response = http.get("/v1/jobs")
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == EXCEPTIONS.get(reason, STATUS_BY_CODE[reason.code.name])
    assert problem.pop("title")
    assert problem == {
        "type": "about:blank", "status": response.status_code, "detail": "why", "reason": reason,
        "field": "spec.images[0]", "job_id": None, "retry_after": 1e4,
    }  # fmt: skip
    assert response.headers["retry-after"] == "10000"


def test_a_failed_job_says_which_it_was(http, fake):
    fake.fail_next_job("ATTEMPTS_EXHAUSTED", "the worker died")
    response = http.post("/v1/visualize", files={"image": ("a.png", png(seed=7))})
    assert (response.status_code, response.json()["reason"]) == (500, "ATTEMPTS_EXHAUSTED")
    assert http.get(f"/v1/jobs/{response.json()['job_id']}").json()["state"] == "failed"


def test_every_error_of_the_sdk_has_a_row():
    errors = {kind for kind in vars(sdk).values() if isinstance(kind, type) and issubclass(kind, sdk.ConvlensError)}
    assert errors - {sdk.ConvlensError, sdk.MissingExtra} == STATUS_BY_TYPE.keys()
    for kind, status in STATUS_BY_TYPE.items():
        assert Problem.from_error(kind("why")).status == status
    for reason, status in STATUS_BY_REASON.items():
        assert Problem.from_error(sdk.Unauthenticated("why", reason=reason)).status == status


def test_a_server_that_is_not_there_is_unavailable():
    with serve() as target:
        pass
    with gateway(target, connect_timeout=0.1) as http:
        response = http.get("/v1/server")
    assert (response.status_code, response.json()["reason"]) == (503, "SERVER_UNREACHABLE")


def test_a_job_that_takes_too_long_is_a_timeout():
    with serve(delay=60) as target, gateway(target) as http:
        response = http.post("/v1/visualize", files={"image": ("a.png", png())}, data={"request": '{"timeout": 0.5}'})
    assert (response.status_code, response.json()["reason"]) == (504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("GET", "/static/nothing.js", 404, "NOT_FOUND"),
        ("GET", "/static/../settings.py", 404, "NOT_FOUND"),
        ("GET", "/static/%2e%2e/settings.py", 404, "NOT_FOUND"),
        ("PUT", "/v1/visualize", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/docs", 404, "NOT_FOUND"),
    ],
)
def test_what_does_not_exist_is_a_problem_too(http, method, path, status, reason):
    response = http.request(method, path)
    assert (response.status_code, response.json()["reason"]) == (status, reason)
    assert response.headers["content-type"] == "application/problem+json"


def test_each_request_calls_with_its_own_token():
    with token_reader() as target, gateway(target) as http:
        for token in ("one", "two", None):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            response = http.get("/v1/server", headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["detail"] == f"token: {headers.get('Authorization')}"
        for refused, status in (("Basic YQ==", 401), ("Bearer a b", 400)):
            assert http.get("/v1/server", headers={"Authorization": refused}).status_code == status
