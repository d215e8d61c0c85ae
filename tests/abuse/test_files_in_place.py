"""Files of a running server that are rewritten in place, over and over, beside calls: nobody notices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

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
    """A server with tokens and certificates, a worker of null, and the folder of its files."""
    folder = tmp_path_factory.mktemp("guarded")
    made = ensure_certificates(folder / "tls", ["localhost"])
    tls = client_tls(ensure_certificates(shutil.copytree(folder / "tls", folder / "client")))  # which nobody rewrites
    token = new_token(folder / "tokens.toml", "acme", "read", "submit")
    new_token(folder / "tokens.toml", "globex", "read")
    paths = {name: made.ca.certificate.parent / file for name, file in FILES.items()}
    service = start_service(tokens=folder / "tokens.toml", **paths)
    service.worker("null=null")
    return folder, service.server()[1], token, tls


def test_no_caller_is_refused_while_the_tokens_file_is_written_slowly(guarded, scale):
    folder, target, token, tls = guarded
    file = folder / "tokens.toml"
    whole = file.read_bytes()
    with BackgroundCaller(target, token=token, tls=tls, pause=0) as neighbour:
        for _ in range(10 * scale):
            for end in range(0, len(whole), 7):
                with file.open("r+b") as out:
                    out.truncate(end)
                    out.seek(0)
                    out.write(whole[:end])
                    out.flush()
                    threading.Event().wait(0.002)  # a writer takes its time
            file.write_bytes(whole)
            file.unlink()
            threading.Event().wait(0.05)
            file.write_bytes(whole)
    assert not neighbour.errors
    assert neighbour.slowest < 3  # of a busy machine


def test_no_handshake_fails_while_certificates_are_replaced_one_after_the_other(guarded, tmp_path, scale):
    """Each new connection is served with the old pair or the new, both of one authority, never with a mixture."""
    folder, target, token, tls = guarded
    used = folder / "tls"
    pairs = [shutil.copytree(used, tmp_path / "first"), tmp_path / "second"]
    pairs[1].mkdir()
    for name in ("ca.pem", "ca.key"):
        shutil.copy(used / name, pairs[1] / name)
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
            with (used / name).open("wb") as out:
                assert call()  # empty
                out.write(content[: len(content) // 2])
                out.flush()
                assert call()  # half
                out.write(content[len(content) // 2 :])
            assert call()  # whole, and fits its partner or not


def test_files_that_are_gone_stay_in_force(guarded):
    folder, target, token, tls = guarded
    names = [folder / "tokens.toml", *(folder / "tls" / it for it in FILES.values())]
    moved = [it.rename(it.with_name(f"{it.name}.away")) for it in names]
    with Client(target, token=token, tls=tls) as client:
        assert client.server_info().version
    for away, name in zip(moved, names, strict=True):
        away.rename(name)
    with Client(target, token=token, tls=tls) as client:
        assert client.server_info().version


@pytest.mark.parametrize("setting", ["tokens", "tls_cert", "tls_key", "tls_client_ca"])
def test_a_mount_that_is_missing_is_no_open_server(guarded, tmp_path, redis_url, setting):
    folder = guarded[0]
    files = {name: folder / "tls" / file for name, file in FILES.items()}
    files |= {"tokens": folder / "tokens.toml", setting: tmp_path / "gone"}
    env = os.environ | {f"CONVLENS_{name.upper()}": str(path) for name, path in files.items()}
    command = [sys.executable, "-m", "convlens.server", "--port=0", "--redis-url", redis_url]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{setting}: cannot read {tmp_path / 'gone'}: No such file" in done.stderr
