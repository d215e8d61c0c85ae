"""Redis over TLS by a rediss:// URL: every connection checks the certificate and can present a client's."""

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
def certificates(tmp_path_factory):
    return ensure_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def port(own_valkey, certificates):
    """The port of a Redis that requires client certificates."""
    with tls_proxy(own_valkey.port, certificates, client_certificates=True) as port:
        yield port


@pytest.fixture(scope="module")
def query(certificates):
    """The query of a rediss:// URL with the CA and a client certificate."""
    files = {
        "ssl_ca_certs": certificates.ca.certificate,
        "ssl_certfile": certificates.client.certificate,
        "ssl_keyfile": certificates.client.key,
    }
    return "&".join(f"{name}={path}" for name, path in files.items())


def connect_broker(url):
    """Connect to Redis as Celery does."""
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


@pytest.mark.parametrize("part", ["queue", "broker"])
@pytest.mark.parametrize("problem", ["another authority", "no authority given", "no client certificate"])
def test_connections_with_untrusted_or_missing_certificates_fail(tmp_path, port, query, part, problem):
    other = ensure_certificates(tmp_path / "other")
    ca, client_pair = query.split("&", 1)
    queries = {
        "another authority": f"ssl_ca_certs={other.ca.certificate}&{client_pair}",
        "no authority given": client_pair,
        "no client certificate": ca,
    }
    url = f"rediss://127.0.0.1:{port}/0?{queries[problem]}"
    if part == "queue":
        with pytest.raises(RedisUnavailable):
            connect(url).ping()
    else:
        with pytest.raises(Exception, match=r"(?i)ssl|certificate|connection"):
            connect_broker(url)


@pytest.mark.parametrize("part", ["queue", "broker"])
def test_a_rediss_url_without_options_checks_certificates(own_valkey, certificates, part):
    with tls_proxy(own_valkey.port, certificates, client_certificates=False) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            connect(url).ping() if part == "queue" else connect_broker(url)
