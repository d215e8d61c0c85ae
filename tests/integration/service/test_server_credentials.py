"""A server's certificates and tokens: reloaded while it serves, and checked at its start."""

from __future__ import annotations

import shutil
import subprocess
import sys

import grpc
import pytest
from credentials import client_tls, new_token
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from processes import until

from convlens.client import TLS, Client, Unauthenticated, Unavailable
from convlens.local.certificates import ensure_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return ensure_certificates(tmp_path_factory.mktemp("tls"))


def test_a_certificate_for_another_name_is_not_trusted(certificates, start_service):
    pair = certificates.server
    service = start_service(tls_cert=pair.certificate, tls_key=pair.key, host="127.0.0.2")
    target = service.server()[1]
    with Client(target, tls=TLS(certificates.ca.certificate)) as client, pytest.raises(Unauthenticated) as caught:
        client.models()
    assert caught.value.reason == "SERVER_UNTRUSTED"


def test_without_a_client_ca_a_token_suffices(certificates, start_service, tmp_path):
    token = new_token(file := tmp_path / "tokens.toml", "acme", "read")
    pair = certificates.server
    service = start_service(tls_cert=pair.certificate, tls_key=pair.key, tokens=file)
    with Client(service.server()[1], token=token, tls=TLS(certificates.ca.certificate)) as client:
        assert client.server_info().version


def test_certificates_are_reloaded_while_the_server_runs(tmp_path, start_service):
    old, new = (client_tls(ensure_certificates(tmp_path / name)) for name in ("old", "new"))
    live = shutil.copytree(tmp_path / "old", tmp_path / "live")
    files = {"tls_cert": "server.pem", "tls_key": "server.key", "tls_client_ca": "ca.pem"}
    target = start_service(**{name: live / file for name, file in files.items()}).server()[1]

    def is_served(tls):
        with Client(target, tls=tls, timeout=3) as client:
            try:
                return bool(client.server_info().version)
            except (Unauthenticated, Unavailable):
                return False

    with Client(target, tls=old) as connected:
        assert connected.server_info()
        assert (is_served(old), is_served(new)) == (True, False)
        (live / "server.pem").write_text("-----BEGIN half a certificate")
        assert (is_served(old), is_served(new)) == (True, False)  # the previous pair stays in force
        for file in files.values():
            shutil.copy(tmp_path / "new" / file, live / "part")
            (live / "part").replace(live / file)
        # a removed authority stays in force for a second, in case the file is still being written
        until(lambda: (is_served(old), is_served(new)) == (False, True), 15)
        assert connected.server_info()  # existing connections continue


def test_tokens_are_reloaded_while_the_server_runs(tmp_path, start_service):
    file = tmp_path / "tokens.toml"
    old = new_token(file, "acme", "read")
    process, target = start_service(tokens=file, log_level="DEBUG").server()

    def is_known(token):
        try:
            return bool(clients[token].server_info())
        except Unauthenticated as error:
            return error.reason != "TOKEN_UNKNOWN"

    new = new_token(tmp_path / "next.toml", "acme", "read")
    with Client(target, token=old) as old_client, Client(target, token=new) as new_client:
        clients = {old: old_client, new: new_client}
        assert (is_known(old), is_known(new)) == (True, False)
        (tmp_path / "next.toml").replace(file)
        # a removed token stays in force for a second, in case the file is still being written
        until(lambda: (is_known(old), is_known(new)) == (False, True), 15)
        file.write_text("[[token]]\ntenant =")
        assert (is_known(old), is_known(new)) == (False, True)
        file.unlink()
        assert (is_known(old), is_known(new)) == (False, True)
        latest = new_token(file, "acme", "read")
        until(lambda: (is_known(old), is_known(new)) == (False, False), 15)
    with Client(target, token=latest) as client:
        assert client.server_info()
    assert process.poll() is None


@pytest.mark.parametrize("is_on", [True, False])
def test_reflection_can_be_turned_off(start_service, is_on):
    target = start_service(reflection=is_on).server()[1]
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(target) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=30)
        if is_on:
            names = [service.name for service in next(call).list_services_response.service]
            assert "convlens.v1.JobService" in names
        else:
            with pytest.raises(grpc.RpcError) as caught:
                next(call)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_cert": "server.pem"}, "TLS needs both tls_cert and tls_key"),
        ({"tls_client_ca": "ca.pem"}, "TLS needs both tls_cert and tls_key"),
        ({"tls_cert": "gone.pem", "tls_key": "server.key"}, "gone.pem: No such file"),
        ({"tls_cert": "server.pem", "tls_key": "client.key"}, "are no certificate and its key"),
        ({"tls_cert": "server.pem", "tls_key": "server.key", "tls_client_ca": "ca.key"}, "holds no certificates"),
        ({"tokens": "gone.toml"}, "gone.toml: No such file"),
        ({"tokens": "ca.pem"}, "is not TOML"),
    ],
    ids=str,
)
def test_a_server_with_invalid_certificates_or_tokens_does_not_start(certificates, redis_url, settings, message):
    folder = certificates.ca.certificate.parent
    flags = [f"--{name.replace('_', '-')}={folder / file}" for name, file in settings.items()]
    command = [sys.executable, "-m", "convlens.server", "--port=0", f"--redis-url={redis_url}", *flags]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout) == (1, "")
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert "PRIVATE" not in process.stderr


def test_a_server_without_encryption_or_tokens_warns_at_start(tmp_path, own_valkey):
    flags = ["--port=0", "--host=0.0.0.0", f"--redis-url=redis://127.0.0.1:{own_valkey.port}"]
    command = [sys.executable, "-m", "convlens.server", *flags]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        process.stdout.readline()
        process.terminate()
    text = (tmp_path / "log").read_text()
    assert "traffic on 0.0.0.0 is not encrypted" in text
    assert "everyone who can reach 0.0.0.0 has every role" in text
