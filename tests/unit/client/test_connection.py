"""TLS and tokens of a client: wrong files are named before anything is sent; a token without TLS causes a warning."""

from __future__ import annotations

import logging

import pytest

from convlens.client import TLS, AsyncClient, Client, InvalidArgument
from convlens.local.certificates import ensure_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return ensure_certificates(tmp_path_factory.mktemp("tls"))


def test_good_files_make_credentials(certificates):
    assert TLS(certificates.ca.certificate).credentials()
    assert TLS(str(certificates.ca.certificate), certificates.client.certificate, certificates.client.key).credentials()
    assert TLS().credentials()


@pytest.mark.parametrize(
    ("files", "field", "message"),
    [
        ({"ca": "gone.pem"}, "tls.ca", "cannot read .*gone.pem: No such file"),
        ({"certificate": "client.pem", "key": "gone.key"}, "tls.key", "cannot read .*gone.key: No such file"),
        ({"certificate": "gone.pem", "key": "client.key"}, "tls.certificate", "cannot read .*gone.pem: No such file"),
        ({"ca": "client.key"}, "tls.ca", "client.key holds no certificates in PEM"),
        ({"certificate": "client.pem", "key": "server.key"}, "tls.certificate", "no certificate and its key"),
        ({"certificate": "client.pem"}, "tls.key", "go together"),
        ({"key": "client.key"}, "tls.certificate", "go together"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_wrong_file_is_named_at_the_first_call(certificates, files, field, message, kind):
    folder = certificates.ca.certificate.parent
    tls = TLS(**{name: folder / file for name, file in files.items()})
    client = kind("localhost:1", tls=tls)
    with pytest.raises(InvalidArgument, match=message) as caught:
        await client.models() if kind is AsyncClient else client.models()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("target", "tls", "has_warning"),
    [
        ("far.example:50051", None, True),
        ("dns:///far.example:50051", None, True),
        ("far.example:50051", True, False),
        ("localhost:50051", None, False),
        ("127.0.0.1:50051", None, False),
        ("[::1]:50051", None, False),
        ("unix:/run/convlens", None, False),
    ],
)
def test_a_token_without_tls_causes_one_warning_and_is_never_logged(caplog, target, tls, has_warning):
    caplog.set_level(logging.DEBUG)
    client = Client(target, token="s3cret-token", tls=tls)
    assert ("in the clear" in caplog.text) == has_warning
    assert len(caplog.records) == int(has_warning)
    assert "s3cret-token" not in caplog.text + repr(client) + repr(vars(client))
