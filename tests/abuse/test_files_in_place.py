"""A running server's token file and certificates can be rewritten in place without a failed call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import grpc
import pytest
from credentials import client_tls, new_token
from resource_usage import BackgroundCaller

from convlens.client import Client
from convlens.local.certificates import ensure_certificates
from convlens.v1 import model_pb2, model_pb2_grpc

FILES = {"tls_cert": "server.pem", "tls_key": "server.key", "tls_client_ca": "ca.pem"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, start_service):
    """The folder of files, target, token and client TLS settings of a server with tokens and certificates."""
    folder = tmp_path_factory.mktemp("guarded")
    certificates = ensure_certificates(folder / "tls", ["localhost"])
    tls = client_tls(ensure_certificates(shutil.copytree(folder / "tls", folder / "client")))  # never rewritten
    token = new_token(folder / "tokens.toml", "acme", "read", "submit")
    new_token(folder / "tokens.toml", "globex", "read")
    paths = {name: certificates.ca.certificate.parent / file for name, file in FILES.items()}
    service = start_service(tokens=folder / "tokens.toml", **paths)
    service.worker("null=null")
    return folder, service.server()[1], token, tls


def test_no_call_is_refused_while_the_token_file_is_written_slowly(guarded, scale):
    folder, target, token, tls = guarded
    file = folder / "tokens.toml"
    whole = file.read_bytes()
    with BackgroundCaller(target, token=token, tls=tls, pause=0) as ordinary_caller:
        for _ in range(10 * scale):
            for end in range(0, len(whole), 7):
                with file.open("r+b") as out:
                    out.truncate(end)
                    out.seek(0)
                    out.write(whole[:end])
                    out.flush()
                    time.sleep(0.002)  # a slow writer
            file.write_bytes(whole)
            file.unlink()
            time.sleep(0.05)
            file.write_bytes(whole)
    assert not ordinary_caller.errors
    assert ordinary_caller.slowest < 3  # on a busy machine


def test_no_handshake_fails_while_certificates_are_replaced_one_after_the_other(guarded, tmp_path, scale):
    """Each new connection gets the old pair or the new one, both of one authority, never a mixture."""
    folder, target, token, tls = guarded
    live = folder / "tls"
    pairs = [shutil.copytree(live, tmp_path / "first"), tmp_path / "second"]
    pairs[1].mkdir()
    for name in ("ca.pem", "ca.key"):
        shutil.copy(live / name, pairs[1] / name)
    ensure_certificates(pairs[1], ["localhost"])
    assert (pairs[0] / "server.pem").read_bytes() != (pairs[1] / "server.pem").read_bytes()

    def call():
        with grpc.secure_channel(target, tls.credentials(), [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = model_pb2_grpc.ModelServiceStub(channel)
            metadata = (("authorization", f"Bearer {token}"),)
            return stub.GetServerInfo(model_pb2.GetServerInfoRequest(), metadata=metadata, timeout=10).version

    for round_ in range(4 * scale):
        for name in ("server.pem", "server.key", "ca.pem"):
            content = (pairs[round_ % 2 == 0] / name).read_bytes()
            with (live / name).open("wb") as out:
                assert call()  # empty
                out.write(content[: len(content) // 2])
                out.flush()
                assert call()  # half
                out.write(content[len(content) // 2 :])
            assert call()  # complete; certificate and key may not match yet


def test_the_content_of_deleted_files_stays_in_force(guarded):
    folder, target, token, tls = guarded
    paths = [folder / "tokens.toml", *(folder / "tls" / name for name in FILES.values())]
    renamed = [path.rename(path.with_name(f"{path.name}.away")) for path in paths]
    with Client(target, token=token, tls=tls) as client:
        assert client.server_info().version
    for away, path in zip(renamed, paths, strict=True):
        away.rename(path)
    with Client(target, token=token, tls=tls) as client:
        assert client.server_info().version


@pytest.mark.parametrize("setting", ["tokens", "tls_cert", "tls_key", "tls_client_ca"])
def test_a_server_does_not_start_without_a_configured_file(guarded, tmp_path, redis_url, setting):
    folder = guarded[0]
    files = {name: folder / "tls" / file for name, file in FILES.items()}
    files |= {"tokens": folder / "tokens.toml", setting: tmp_path / "gone"}
    env = os.environ | {f"CONVLENS_{name.upper()}": str(path) for name, path in files.items()}
    command = [sys.executable, "-m", "convlens.server", "--port=0", "--redis-url", redis_url]
    process = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout) == (1, "")
    assert f"{setting}: cannot read {tmp_path / 'gone'}: No such file" in process.stderr
