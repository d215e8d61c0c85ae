"""The settings that guard a server: certificates and tokens replaced while it serves, wrong ones refused at start."""

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
def made(tmp_path_factory):
    return ensure_certificates(tmp_path_factory.mktemp("tls"))


def test_a_server_of_another_name_is_not_trusted(made, start_service):
    service = start_service(tls_cert=made.server.certificate, tls_key=made.server.key, host="127.0.0.2")
    target = service.server()[1]
    with Client(target, tls=TLS(made.ca.certificate)) as client, pytest.raises(Unauthenticated) as caught:
        client.models()
    assert caught.value.reason == "SERVER_UNTRUSTED"


def test_without_a_client_ca_a_token_is_enough(made, start_service, tmp_path):
    token = new_token(file := tmp_path / "tokens.toml", "acme", "read")
    service = start_service(tls_cert=made.server.certificate, tls_key=made.server.key, tokens=file)
    with Client(service.server()[1], token=token, tls=TLS(made.ca.certificate)) as client:
        assert client.server_info().version


def test_certificates_are_replaced_while_it_serves(tmp_path, start_service):
    old, new = (client_tls(ensure_certificates(tmp_path / name)) for name in ("old", "new"))
    used = shutil.copytree(tmp_path / "old", tmp_path / "used")
    files = {"tls_cert": "server.pem", "tls_key": "server.key", "tls_client_ca": "ca.pem"}
    target = start_service(**{name: used / file for name, file in files.items()}).server()[1]

    def served(tls):
        with Client(target, tls=tls, timeout=3) as client:
            try:
                return bool(client.server_info().version)
            except (Unauthenticated, Unavailable):
                return False

    with Client(target, tls=old) as connected:
        assert connected.server_info()
        assert (served(old), served(new)) == (True, False)
        (used / "server.pem").write_text("-----BEGIN half a certificate")
        assert (served(old), served(new)) == (True, False)  # what was good stays in force
        for file in files.values():
            shutil.copy(tmp_path / "new" / file, used / "part")
            (used / "part").replace(used / file)
        until(
            lambda: (served(old), served(new)) == (False, True), 15
        )  # an authority that is gone is doubted for a second
        assert connected.server_info()  # a connection lives on


def test_tokens_are_replaced_while_it_serves(tmp_path, start_service):
    file = tmp_path / "tokens.toml"
    old = new_token(file, "acme", "read")
    process, target = start_service(tokens=file, log_level="DEBUG").server()

    def known(token):
        try:
            return bool(clients[token].server_info())
        except Unauthenticated as error:
            return error.reason != "TOKEN_UNKNOWN"

    new = new_token(tmp_path / "next.toml", "acme", "read")
    with Client(target, token=old) as one, Client(target, token=new) as other:
        clients = {old: one, new: other}
        assert (known(old), known(new)) == (True, False)
        (tmp_path / "next.toml").replace(file)
        until(lambda: (known(old), known(new)) == (False, True), 15)  # a token that is gone is doubted for a second
        file.write_text("[[token]]\ntenant =")
        assert (known(old), known(new)) == (False, True)
        file.unlink()
        assert (known(old), known(new)) == (False, True)
        again = new_token(file, "acme", "read")
        until(lambda: (known(old), known(new)) == (False, False), 15)
    with Client(target, token=again) as client:
        assert client.server_info()
    assert process.poll() is None


@pytest.mark.parametrize("on", [True, False])
def test_reflection_is_a_setting(start_service, on):
    target = start_service(reflection=on).server()[1]
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(target) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=30)
        if on:
            names = [it.name for it in next(call).list_services_response.service]
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
def test_a_server_that_cannot_guard_what_it_serves_does_not_start(made, redis_url, settings, message):
    folder = made.ca.certificate.parent
    flags = [f"--{name.replace('_', '-')}={folder / file}" for name, file in settings.items()]
    command = [sys.executable, "-m", "convlens.server", "--port=0", f"--redis-url={redis_url}", *flags]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "PRIVATE" not in done.stderr


def test_a_server_open_to_others_says_so(tmp_path, own_valkey):
    flags = ["--port=0", "--host=0.0.0.0", f"--redis-url=redis://127.0.0.1:{own_valkey.port}"]
    command = [sys.executable, "-m", "convlens.server", *flags]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        process.stdout.readline()
        process.terminate()
    told = (tmp_path / "log").read_text()
    assert "traffic on 0.0.0.0 is not encrypted" in told
    assert "everyone who can reach 0.0.0.0 has every role" in told
