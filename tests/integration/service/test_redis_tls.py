"""Redis over TLS: by a rediss:// URL, with its certificate checked by all that connect, and a client's own."""

from __future__ import annotations

import numpy as np
import pytest
from processes import Service
from tls_proxy import tls_proxy

from convlens.client import Client, GradCAM
from convlens.jobs.queue.celery import celery_app
from convlens.jobs.runtime.redis_client import RedisUnavailable, connect
from convlens.local.certificates import ensure_certificates

IMAGE = np.zeros((224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return ensure_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def port(own_valkey, made):
    with tls_proxy(own_valkey.port, made, client_certificates=True) as port:
        yield port


@pytest.fixture(scope="module")
def query(made):
    files = {
        "ssl_ca_certs": made.ca.certificate,
        "ssl_certfile": made.client.certificate,
        "ssl_keyfile": made.client.key,
    }
    return "&".join(f"{name}={path}" for name, path in files.items())


def broker(url):
    with celery_app(url).connection_for_write() as connection:
        connection.ensure_connection(max_retries=0, timeout=2)


def test_jobs_run_over_a_redis_that_speaks_only_mutual_tls(tmp_path, own_valkey, port, query):
    service = Service(tmp_path, own_valkey)
    service.url = f"rediss://127.0.0.1:{port}/0?{query}"
    try:
        service.worker("null=null")
        with Client(service.server()[1], timeout=60) as client:
            assert client.submit([IMAGE] * 3, [GradCAM()]).result()["grad_cam"].shape == (3, 14, 14)
    finally:
        service.stop()
    assert "insecure" not in "".join(path.read_text() for path in tmp_path.glob("*.log"))


@pytest.mark.parametrize("part", ["ledger", "broker"])
@pytest.mark.parametrize("why", ["another authority", "no authority given", "no client certificate"])
def test_a_redis_that_is_not_to_be_trusted_is_not_talked_to(tmp_path, port, made, query, part, why):
    other = ensure_certificates(tmp_path / "other")
    ca, own = query.split("&", 1)
    url = (
        f"rediss://127.0.0.1:{port}/0?"
        + {
            "another authority": f"ssl_ca_certs={other.ca.certificate}&{own}",
            "no authority given": own,
            "no client certificate": ca,
        }[why]
    )
    if part == "ledger":
        with pytest.raises(RedisUnavailable):
            connect(url).ping()
    else:
        with pytest.raises(Exception, match=r"(?i)ssl|certificate|connection"):
            broker(url)


@pytest.mark.parametrize("part", ["ledger", "broker"])
def test_a_bare_rediss_url_checks_certificates_too(own_valkey, made, part):
    with tls_proxy(own_valkey.port, made, client_certificates=False) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            connect(url).ping() if part == "ledger" else broker(url)
