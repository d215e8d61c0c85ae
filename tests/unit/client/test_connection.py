"""TLS and tokens of a client: files that are wrong are named before anything is sent, tokens in the clear warned of."""

from __future__ import annotations

import logging

import pytest

from convlens.client import TLS, AsyncClient, Client, InvalidArgument
from convlens.local.certificates import ensure_certificates


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return ensure_certificates(tmp_path_factory.mktemp("tls"))


def test_good_files_are_taken(made):
    assert TLS(made.ca.certificate).credentials()
    assert TLS(str(made.ca.certificate), made.client.certificate, made.client.key).credentials()
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
async def test_a_file_that_is_wrong_is_named_at_the_first_call(made, files, field, message, kind):
    folder = made.ca.certificate.parent
    tls = TLS(**{name: folder / file for name, file in files.items()})
    client = kind("localhost:1", tls=tls)
    with pytest.raises(InvalidArgument, match=message) as caught:
        await client.models() if kind is AsyncClient else client.models()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("target", "tls", "warned"),
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
def test_a_token_in_the_clear_is_warned_of_once_and_never_told(caplog, target, tls, warned):
    caplog.set_level(logging.DEBUG)
    client = Client(target, token="s3cret-token", tls=tls)
    assert ("in the clear" in caplog.text) == warned
    assert len(caplog.records) == int(warned)
    assert "s3cret-token" not in caplog.text + repr(client) + repr(vars(client))
