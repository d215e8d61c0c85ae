"""The gateway before a server with mutual TLS and tokens: it brings the certificate, its callers bring the tokens."""

from __future__ import annotations

import pytest
from credentials import client_tls, new_token
from gateways import gateway, png

from convlens.local.certificates import ensure_certificates

FILES = {"image": ("a.png", png())}


@pytest.fixture(scope="module")
def secured(tmp_path_factory, start_service):
    """The target of a secured server, its certificates, and tokens by name."""
    folder = tmp_path_factory.mktemp("secured")
    certificates = ensure_certificates(folder / "tls")
    tokens = {tenant: new_token(folder / "tokens.toml", tenant, "read", "submit") for tenant in ("acme", "globex")}
    tokens["reader"] = new_token(folder / "tokens.toml", "acme", "read")
    service = start_service(
        tls_cert=certificates.server.certificate, tls_key=certificates.server.key,
        tls_client_ca=certificates.ca.certificate, tokens=folder / "tokens.toml",
    )  # fmt: skip
    service.worker("null=null")
    return service.server()[1], certificates, tokens


def bearer(token):
    """The header of a token."""
    return {"Authorization": f"Bearer {token}"}


def test_the_token_of_a_request_decides_what_it_may(secured):
    target, certificates, tokens = secured
    with gateway(target, tls=client_tls(certificates)) as http:
        missing, unknown = http.get("/v1/models"), http.get("/v1/models", headers=bearer("x" * 43))
        assert (missing.status_code, missing.json()["reason"]) == (401, "TOKEN_MISSING")
        assert (unknown.status_code, unknown.json()["reason"]) == (401, "TOKEN_UNKNOWN")
        assert http.get("/v1/models", headers=bearer(tokens["reader"])).status_code == 200
        refused = http.post("/v1/visualize", files=FILES, headers=bearer(tokens["reader"]))
        assert (refused.status_code, refused.json()["reason"]) == (403, "ROLE_MISSING")
        assert http.post("/v1/visualize", files=FILES, headers=bearer(tokens["acme"])).status_code == 200


def test_tenants_that_share_a_gateway_do_not_see_each_other(secured):
    target, certificates, tokens = secured
    with gateway(target, tls=client_tls(certificates)) as http:
        address = http.post("/v1/jobs", files=FILES, headers=bearer(tokens["acme"])).headers["location"]
        for request in (http.get, http.delete):
            assert request(address, headers=bearer(tokens["globex"])).json()["reason"] == "JOB_UNKNOWN"
        assert http.get(f"{address}/result", headers=bearer(tokens["globex"])).status_code == 404
        assert http.get(f"{address}/result", headers=bearer(tokens["acme"])).status_code == 200
        assert http.get("/v1/jobs", headers=bearer(tokens["globex"])).json() == {"jobs": []}


def test_a_gateway_without_a_certificate_reaches_nothing(secured):
    target, _, tokens = secured
    with gateway(target, tls=None, connect_timeout=1) as http:
        response = http.get("/v1/server", headers=bearer(tokens["acme"]))
    assert (response.status_code, response.json()["reason"]) == (503, "SERVER_UNREACHABLE")
