"""Damaged forms are refused with a problem, and never an error of the gateway."""

from __future__ import annotations

import pytest
from gateways import png
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

FORM = (
    b'--form\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    + png()[:100]
    + b'\r\n--form\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"target": {"top_k": 3}}\r\n--form--\r\n'
)
PIECES = st.sampled_from([b"", b"\r\n", b"--form", b'"', b";", b"\0", b"\xff", b"name*=utf-8''%ff", b"{", b"[" * 2000])
EDITS = st.lists(st.tuples(st.integers(0, len(FORM)), st.integers(0, 8), PIECES), max_size=6)
TYPES = st.sampled_from([
    "multipart/form-data; boundary=form", "multipart/form-data", 'multipart/form-data; boundary="form"; charset=utf-16',
    "multipart/form-data; boundary=form; charset=rot13", "multipart/form-data; boundary=\xff",
])  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, content_type=TYPES)
@example(edits=[], content_type="multipart/form-data; boundary=form")
def test_a_damaged_form_is_a_problem_of_its_sender(http, edits, content_type):
    body = FORM
    for start, length, piece in edits:
        body = body[:start] + piece + body[start + length :]
    response = http.post("/v1/visualize", content=body, headers={"Content-Type": content_type.encode("latin-1")})
    if response.status_code != 200:
        assert response.status_code in {400, 404, 415, 422}, response.text
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 10_000, '{"target": ' + "9" * 100_000 + "}", "\ud800"])
def test_json_that_is_no_request_is_a_problem_of_its_sender(http, text):
    files = {"image": ("a.png", png()), "request": (None, text.encode("utf-8", "surrogatepass"))}
    response = http.post("/v1/visualize", files=files)
    assert response.status_code in {400, 422}, response.text


@pytest.mark.parametrize("charset", ["undefined", "punycode", "utf-7", '"utf-16"'])
def test_a_form_in_another_charset_than_utf_8_is_refused(http, charset):
    headers = {"Content-Type": f"multipart/form-data; boundary=form; charset={charset}"}
    response = http.post("/v1/visualize", content=FORM, headers=headers)
    assert (response.status_code, response.json()["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "text",
    [
        '{"visualizations": [{"type": "activations", "layers": ["a"], "channels": 1000000000}]}',
        '{"visualizations": [{"type": "activations", "layers": ["a"], "channels": 100000000000000000000}]}',
        '{"target": [' + "[{}]," * 20_000 + "[{}]]}",
        '{"target": [[' + "1," * 20_000 + "1]]}",
    ],
)
def test_long_lists_and_large_counts_are_refused_before_anything_is_made_of_them(http, text):
    response = http.post("/v1/visualize", files={"image": ("a.png", png())}, data={"request": text})
    assert response.status_code == 422, response.text
