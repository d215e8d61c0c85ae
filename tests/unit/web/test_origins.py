"""Which pages may use a gateway, and what browsers are told about its own."""

from __future__ import annotations

import re

import pytest
from gateways import gateway, png


@pytest.fixture(scope="module")
def named(target):
    """A gateway behind the name convlens.example."""
    with gateway(target, allowed_hosts=("Convlens.Example",)) as http:
        yield http


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST", "localhost.", ""])
def test_a_gateway_goes_by_the_names_of_loopback(http, host):
    expected = 200 if host else 403
    assert http.get("/v1/server", headers={"Host": host}).status_code == expected


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:8080", "localhost.attacker.example", "a b", "x@localhost"]
)
def test_another_name_is_refused(http, host):
    for method, path in (("GET", "/v1/server"), ("POST", "/v1/visualize"), ("GET", "/")):
        response = http.request(method, path, headers={"Host": host})
        assert response.status_code in {400, 403}
        if response.status_code == 403:
            assert response.json()["reason"] == "HOST_REFUSED"


def test_a_name_may_be_allowed(named):
    assert named.get("/v1/server", headers={"Host": "convlens.example"}).status_code == 200
    assert named.get("/v1/server", headers={"Host": "convlens.example:443"}).status_code == 200
    assert named.get("/v1/server", headers={"Host": "other.example"}).status_code == 403


def test_probes_by_address_reach_health(http):
    assert http.get("/healthz", headers={"Host": "10.1.2.3:8080"}).text == "ok\n"


@pytest.mark.parametrize(
    "origin", ["https://attacker.example", "null", "http://localhost:3000", "http://127.0.0.1", ""]
)
def test_pages_of_other_origins_may_not_change_anything(http, origin):
    for method, path in (
        ("POST", "/v1/visualize"), ("POST", "/v1/jobs"), ("POST", "/v1/jobs/1/cancel"), ("DELETE", "/v1/jobs/1"),
    ):  # fmt: skip
        response = http.request(method, path, headers={"Origin": origin})
        assert (response.status_code, response.json()["reason"]) == (403, "ORIGIN_REFUSED")
    safe = http.get("/v1/server", headers={"Origin": origin})
    assert safe.status_code == 200
    assert "access-control-allow-origin" not in safe.headers  # so that the other page cannot read it


def test_the_gateway_s_own_page_may(http, named):
    files = {"image": ("a.png", png())}
    own = str(http.base_url).rstrip("/")
    assert http.post("/v1/visualize", files=files, headers={"Origin": own}).status_code == 200
    headers = {"Origin": "https://convlens.example", "Host": "convlens.example"}
    assert named.post("/v1/visualize", files=files, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/jobs/123", "/static/main.js", "/v1/server", "/v1/nothing", "/openapi.json"])
def test_every_response_has_the_security_headers(http, path):
    headers = http.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_and_what_it_loads_come_from_the_gateway_alone(http):
    page = http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert http.get("/jobs/123").text == page.text
    loaded = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert loaded
    assert all(http.get(path).is_success for path in loaded)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page.text)
