"""Who gets in: certificates both ways, tokens with roles, both replaced while it serves; and what stays open."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from credentials import client_tls, new_token
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import until

from convlens.client import TLS, AsyncClient, Client, GradCAM, PermissionDenied, Unauthenticated, Unavailable
from convlens.client.stubs import Stubs
from convlens.local.certificates import ensure_certificates
from convlens.server.auth.principal import Role
from convlens.server.interceptors.auth import REQUIRED_ROLES
from convlens.v1 import job_pb2, spec_pb2, visualization_pb2

IMAGE = np.zeros((224, 224, 3), np.uint8)
Code = grpc.StatusCode


class Secured:
    """A service with mutual TLS and tokens for two tenants, a reader and an admin."""

    def __init__(self, folder, start_service) -> None:
        self.made = ensure_certificates(folder / "tls")
        self.file = folder / "tokens.toml"
        self.acme = new_token(self.file, "acme", "read", "submit")
        self.globex = new_token(self.file, "globex", "read", "submit")
        self.reader = new_token(self.file, "acme", "read")
        self.boss = new_token(self.file, "operators", "admin")
        self.health = f"unix:{folder}/health"
        service = start_service(
            tls_cert=self.made.server.certificate,
            tls_key=self.made.server.key,
            tls_client_ca=self.made.ca.certificate,
            tokens=self.file,
            health_address=self.health,
            log_level="DEBUG",
        )
        service.worker("null=null")
        self.process, self.target = service.server()
        self.tls = client_tls(self.made)

    def client(self, token=None, kind=Client, **options):
        return kind(self.target, token=token, **{"tls": self.tls, "timeout": 60} | options)

    def channel(self):
        return grpc.secure_channel(self.target, self.tls.credentials())


@pytest.fixture(scope="module")
def secured(tmp_path_factory, start_service):
    return Secured(tmp_path_factory.mktemp("secured"), start_service)


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory):
    """Certificates as good as the server's, by somebody else."""
    return ensure_certificates(tmp_path_factory.mktemp("other"))


def ask(channel, method, token=None, request=b""):
    """The status of a bare call of any method, with a token or none."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    call = channel.stream_stream(method)(iter([request]), metadata=metadata, timeout=30)
    try:
        list(call)
    except grpc.RpcError as error:
        return error
    return call


# --- certificates ---


async def test_two_tenants_are_served_over_mutual_tls(secured):
    for token in (secured.acme, secured.globex):
        with secured.client(token) as client:
            assert client.saliency(IMAGE)["saliency"].shape == (1, 224, 224)
            job = client.submit(IMAGE, [GradCAM()])
            assert job.result()["grad_cam"].shape == (1, 14, 14)
        async with secured.client(token, AsyncClient) as client:
            assert (await client.grad_cam(IMAGE))["grad_cam"].shape == (1, 14, 14)


def test_a_server_of_another_authority_is_not_trusted_and_not_asked_twice(secured, other_ca):
    wrong = TLS(other_ca.ca.certificate, secured.made.client.certificate, secured.made.client.key)
    for tls in (wrong, True):
        began = time.monotonic()
        with secured.client(secured.acme, tls=tls) as client, pytest.raises(Unauthenticated) as caught:
            client.models()
        assert caught.value.reason == "SERVER_UNTRUSTED"
        assert secured.target in caught.value.message
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("shown", ["none", "another authority's", "plaintext"])
def test_no_client_without_a_certificate_gets_in_whatever_its_token(secured, other_ca, shown):
    ca = secured.made.ca.certificate
    tls = {
        "none": TLS(ca),
        "another authority's": TLS(ca, other_ca.client.certificate, other_ca.client.key),
        "plaintext": None,
    }[shown]
    with secured.client(secured.boss, tls=tls, timeout=3) as client, pytest.raises(Unavailable):
        client.models()


# --- tokens and roles ---


@pytest.mark.parametrize("method", REQUIRED_ROLES)
def test_every_method_needs_a_known_token_with_its_role(secured, method):
    with secured.channel() as channel:
        missing = ask(channel, method)
        wrong = ask(channel, method, secured.acme.swapcase())
        reading = ask(channel, method, secured.reader)
        admin = ask(channel, method, secured.boss)
    assert (missing.code(), missing.details()) == (
        Code.UNAUTHENTICATED, "this server needs one `authorization: Bearer TOKEN`"
    )  # fmt: skip
    assert wrong.code() is Code.UNAUTHENTICATED
    assert admin.code() not in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
    if REQUIRED_ROLES[method] is Role.READ:
        assert reading.code() not in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
    else:
        assert reading.code() is Code.PERMISSION_DENIED
        assert reading.details() == f"{method.split('/')[-1]} needs the role submit, which this token of acme lacks"


async def test_the_sdk_says_what_is_missing(secured):
    for token, reason in ((None, "TOKEN_MISSING"), ("no-token-of-ours", "TOKEN_UNKNOWN")):
        with secured.client(token) as client, pytest.raises(Unauthenticated) as caught:
            client.saliency(IMAGE)
        assert caught.value.reason == reason
        async with secured.client(token, AsyncClient) as client:
            with pytest.raises(Unauthenticated) as caught:
                await client.models()
        assert caught.value.reason == reason
    with secured.client(secured.reader) as client, pytest.raises(PermissionDenied, match="the role submit") as denied:
        client.saliency(IMAGE)
    assert denied.value.reason == "ROLE_MISSING"


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", "TOKEN")],
        [("authorization", "Basic TOKEN")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer TOKEN"), ("authorization", "Bearer TOKEN")],
        [("token", "TOKEN")],
    ],
    ids=str,
)
def test_a_token_is_shown_once_and_as_a_bearers(secured, metadata):
    shown = [(name, value.replace("TOKEN", secured.boss)) for name, value in metadata]
    with secured.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        Stubs(channel).models.ListModels(job_pb2.ListJobsRequest(), metadata=shown, timeout=30)
    assert caught.value.code() is Code.UNAUTHENTICATED


def test_the_scheme_is_written_in_any_case(secured):
    with secured.channel() as channel:
        assert Stubs(channel).models.ListModels(
            job_pb2.ListJobsRequest(), metadata=[("authorization", f"bearer {secured.boss}")], timeout=30
        )


def test_what_a_stranger_sends_is_refused_unread(secured):
    image = (
        spec_pb2.Image(encoded=os.urandom(48 << 20)) if "encoded" in spec_pb2.Image.DESCRIPTOR.fields_by_name else None
    )
    spec = spec_pb2.JobSpec(images=[image]) if image else spec_pb2.JobSpec(model="x" * (48 << 20))
    request = visualization_pb2.VisualizeRequest(spec=spec).SerializeToString()
    before = _peak_memory(secured.process)
    with secured.channel() as channel:
        for _ in range(4):
            method = "/convlens.v1.VisualizationService/Visualize"
            assert ask(channel, method, "wrong", request).code() is Code.UNAUTHENTICATED
    assert _peak_memory(secured.process) - before < 24 << 20
    with secured.client(secured.acme) as client:
        assert client.models()


def _peak_memory(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


# --- what stays open, and what can be closed ---


def test_health_is_open_to_strangers_and_its_own_address_answers_nothing_else(secured):
    request = health_pb2.HealthCheckRequest()
    with secured.channel() as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status == 1
    with grpc.insecure_channel(secured.health) as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status == 1
        for method in (*REQUIRED_ROLES, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"):
            assert ask(channel, method, secured.boss).code() is Code.UNIMPLEMENTED


def test_the_containers_check_works_over_the_health_address(secured):
    def check(**settings):
        env = os.environ | {f"CONVLENS_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "convlens.server.check"]
        return subprocess.run(command, env=env, check=False, capture_output=True, text=True)

    tls = {"tls_cert": secured.made.server.certificate, "tls_key": secured.made.server.key}
    assert check(**tls, health_address=secured.health).returncode == 0
    told = check(**tls)
    assert told.returncode == 1
    assert "needs a health_address" in told.stderr


def test_unknown_methods_are_told_as_such(secured):
    with secured.channel() as channel:
        assert ask(channel, "/convlens.v1.JobService/StealJob", secured.acme).code() is Code.UNIMPLEMENTED


# --- the command line, and the logs ---


@pytest.mark.parametrize("by", ["flags", "variables"])
def test_the_command_line_shows_certificate_and_token(secured, by):
    given = {
        "server": secured.target,
        "ca": secured.tls.ca,
        "cert": secured.tls.certificate,
        "key": secured.tls.key,
        "token": secured.acme,
    }
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    words = []
    if by == "flags":
        words = [f"--{name}={value}" for name, value in given.items()]
    else:
        env |= {f"CONVLENS_{name.upper()}": str(value) for name, value in given.items()}
    command = [sys.executable, "-m", "convlens.client", *words, "models"]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "null" in done.stdout


def test_no_token_is_in_any_log(secured, tmp_path_factory):
    """Last here, after all that was refused and let in, at the level DEBUG."""
    logs = [path for path in tmp_path_factory.getbasetemp().glob("*/*.log") if "convlens" in path.name]
    until(lambda: any("reason=TOKEN_UNKNOWN" in path.read_text() for path in logs))
    told = "".join(path.read_text() for path in logs)
    assert "convlens_" not in told
    for token in (secured.acme, secured.globex, secured.reader, secured.boss, secured.acme.swapcase()):
        assert token not in told
