"""Authentication and authorization: mutual TLS, tokens with roles, and the methods that stay open."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
from credentials import client_tls, new_token
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import until
from resource_usage import peak

from convlens.client import TLS, AsyncClient, Client, GradCAM, PermissionDenied, Unauthenticated, Unavailable
from convlens.client.stubs import Stubs
from convlens.local.certificates import ensure_certificates
from convlens.server.auth.authenticator import REQUIRED_ROLES
from convlens.server.auth.principal import Role
from convlens.v1 import job_pb2, spec_pb2, visualization_pb2

IMAGE = np.zeros((224, 224, 3), np.uint8)
Code = grpc.StatusCode


class SecuredServer:
    """A server with mutual TLS and tokens for two tenants, a reader and an admin, and a worker of `null`."""

    def __init__(self, folder, start_service) -> None:
        self.certificates = ensure_certificates(folder / "tls")
        token_file = folder / "tokens.toml"
        self.acme = new_token(token_file, "acme", "read", "submit")
        self.globex = new_token(token_file, "globex", "read", "submit")
        self.reader = new_token(token_file, "acme", "read")
        self.admin = new_token(token_file, "operators", "admin")
        self.health = f"unix:{folder}/health"
        service = start_service(
            tls_cert=self.certificates.server.certificate,
            tls_key=self.certificates.server.key,
            tls_client_ca=self.certificates.ca.certificate,
            tokens=token_file,
            health_address=self.health,
            log_level="DEBUG",
        )
        service.worker("null=null")
        self.process, self.target = service.server()
        self.tls = client_tls(self.certificates)

    def client(self, token=None, kind=Client, **options):
        return kind(self.target, token=token, **{"tls": self.tls, "timeout": 60} | options)

    def channel(self):
        return grpc.secure_channel(self.target, self.tls.credentials())


@pytest.fixture(scope="module")
def secured(tmp_path_factory, start_service):
    return SecuredServer(tmp_path_factory.mktemp("secured"), start_service)


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory):
    """Valid certificates of another authority."""
    return ensure_certificates(tmp_path_factory.mktemp("other"))


def call(channel, method, token=None, request=b""):
    """Call any method with raw bytes, and return the call or its error; both have a status code."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    responses = channel.stream_stream(method)(iter([request]), metadata=metadata, timeout=30)
    try:
        list(responses)
    except grpc.RpcError as error:
        return error
    return responses


# --- certificates ---


async def test_tenants_are_served_over_mutual_tls(secured):
    for token in (secured.acme, secured.globex):
        with secured.client(token) as client:
            assert client.saliency(IMAGE)["saliency"].shape == (1, 224, 224)
            job = client.submit(IMAGE, [GradCAM()])
            assert job.result()["grad_cam"].shape == (1, 14, 14)
        async with secured.client(token, AsyncClient) as client:
            assert (await client.grad_cam(IMAGE))["grad_cam"].shape == (1, 14, 14)


def test_a_server_of_another_authority_is_not_trusted_and_the_call_not_retried(secured, other_ca):
    wrong = TLS(other_ca.ca.certificate, secured.certificates.client.certificate, secured.certificates.client.key)
    for tls in (wrong, True):
        start = time.monotonic()
        with secured.client(secured.acme, tls=tls) as client, pytest.raises(Unauthenticated) as caught:
            client.models()
        assert caught.value.reason == "SERVER_UNTRUSTED"
        assert secured.target in caught.value.message
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("certificate", ["none", "another authority's", "plaintext"])
def test_no_client_without_a_valid_certificate_is_served_whatever_its_token(secured, other_ca, certificate):
    ca = secured.certificates.ca.certificate
    tls = {
        "none": TLS(ca),
        "another authority's": TLS(ca, other_ca.client.certificate, other_ca.client.key),
        "plaintext": None,
    }[certificate]
    with secured.client(secured.admin, tls=tls, timeout=3) as client, pytest.raises(Unavailable):
        client.models()


# --- tokens and roles ---


@pytest.mark.parametrize("method", REQUIRED_ROLES)
def test_every_method_requires_a_known_token_with_its_role(secured, method):
    with secured.channel() as channel:
        missing = call(channel, method)
        unknown = call(channel, method, secured.acme.swapcase())
        reader = call(channel, method, secured.reader)
        admin = call(channel, method, secured.admin)
    assert (missing.code(), missing.details()) == (
        Code.UNAUTHENTICATED, "this server needs one `authorization: Bearer TOKEN`"
    )  # fmt: skip
    assert unknown.code() is Code.UNAUTHENTICATED
    assert admin.code() not in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
    if REQUIRED_ROLES[method] is Role.READ:
        assert reader.code() not in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
    else:
        assert reader.code() is Code.PERMISSION_DENIED
        assert reader.details() == f"{method.split('/')[-1]} needs the role submit, which this token of acme lacks"


async def test_the_sdk_reports_a_missing_token_or_role(secured):
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
def test_a_token_has_to_be_sent_once_and_as_a_bearer_token(secured, metadata):
    metadata = [(name, value.replace("TOKEN", secured.admin)) for name, value in metadata]
    with secured.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        Stubs(channel).models.ListModels(job_pb2.ListJobsRequest(), metadata=metadata, timeout=30)
    assert caught.value.code() is Code.UNAUTHENTICATED


def test_the_bearer_scheme_is_case_insensitive(secured):
    with secured.channel() as channel:
        assert Stubs(channel).models.ListModels(
            job_pb2.ListJobsRequest(), metadata=[("authorization", f"bearer {secured.admin}")], timeout=30
        )


def test_a_request_with_an_unknown_token_is_refused_unread(secured):
    spec = spec_pb2.JobSpec(images=[spec_pb2.Image(encoded=os.urandom(48 << 20))])
    request = visualization_pb2.VisualizeRequest(spec=spec).SerializeToString()
    before = peak(secured.process)
    with secured.channel() as channel:
        for _ in range(4):
            method = "/convlens.v1.VisualizationService/Visualize"
            assert call(channel, method, "wrong", request).code() is Code.UNAUTHENTICATED
    assert peak(secured.process) - before < 24 << 20
    with secured.client(secured.acme) as client:
        assert client.models()


# --- open methods ---


def test_health_needs_no_token_and_the_health_address_serves_nothing_else(secured):
    request = health_pb2.HealthCheckRequest()
    with secured.channel() as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status == 1
    with grpc.insecure_channel(secured.health) as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status == 1
        for method in (*REQUIRED_ROLES, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"):
            assert call(channel, method, secured.admin).code() is Code.UNIMPLEMENTED


def test_the_containers_check_works_over_the_health_address(secured):
    def check(**settings):
        env = os.environ | {f"CONVLENS_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "convlens.server.check"]
        return subprocess.run(command, env=env, check=False, capture_output=True, text=True)

    tls = {"tls_cert": secured.certificates.server.certificate, "tls_key": secured.certificates.server.key}
    assert check(**tls, health_address=secured.health).returncode == 0
    process = check(**tls)
    assert process.returncode == 1
    assert "needs a health_address" in process.stderr


def test_unknown_methods_are_unimplemented(secured):
    with secured.channel() as channel:
        assert call(channel, "/convlens.v1.JobService/StealJob", secured.acme).code() is Code.UNIMPLEMENTED


# --- command line and logs ---


@pytest.mark.parametrize("source", ["flags", "variables"])
def test_the_command_line_sends_certificate_and_token(secured, source):
    settings = {
        "server": secured.target,
        "ca": secured.tls.ca,
        "cert": secured.tls.certificate,
        "key": secured.tls.key,
        "token": secured.acme,
    }
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    flags = []
    if source == "flags":
        flags = [f"--{name}={value}" for name, value in settings.items()]
    else:
        env |= {f"CONVLENS_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "convlens.client", *flags, "models"]
    process = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "null" in process.stdout


def test_no_token_is_in_any_log(secured, tmp_path_factory):
    """Has to be the last test here: it reads the DEBUG logs of all calls before it."""
    logs = [path for path in tmp_path_factory.getbasetemp().glob("*/*.log") if "convlens" in path.name]
    until(lambda: any("reason=TOKEN_UNKNOWN" in path.read_text() for path in logs))
    text = "".join(path.read_text() for path in logs)
    assert "convlens_" not in text
    for token in (secured.acme, secured.globex, secured.reader, secured.admin, secured.acme.swapcase()):
        assert token not in text
