"""A server's memory, calls and connections are bounded against large, unfinished and very many requests."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import ssl
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from credentials import client_tls, new_token
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from partial_sender import PartialSender
from processes import until
from proxy import proxied
from resource_usage import MIB, PHOTO, BackgroundCaller, peak, reset_peak, resident

from convlens.client import Client, InvalidArgument, Overloaded, Saliency
from convlens.client.stubs import Stubs
from convlens.local.certificates import ensure_certificates
from convlens.v1 import job_pb2, spec_pb2, tensors, visualization_pb2

LARGE = 60 * MIB
CHECK = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
VISUALIZE = "/convlens.v1.VisualizationService/VisualizeUnary"
GET_JOB = "/convlens.v1.JobService/GetJob"
BUSY_SECONDS = 4
"""Limit of an ordinary call: it takes 0.5 s on an idle machine, but here the load runs on the same cores."""
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture(scope="module")
def token_file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "tokens.toml"


@pytest.fixture(scope="module")
def token(token_file) -> str:
    return new_token(token_file, "acme", "read", "submit")


@pytest.fixture(scope="module")
def service(start_service):
    """A service that admits 64 MiB of queued images, with a worker of `null`."""
    service = start_service(max_queued_bytes=64 * MIB)
    service.worker("null=null")
    return service


@pytest.fixture(scope="module")
def server(service):
    """The process and the target of a server without tokens."""
    return service.server()


@pytest.fixture(scope="module")
def guarded(service, token, token_file):
    """The process and the target of a server with tokens."""
    process, line = service.start("convlens.server", "--port", "0", "--tokens", str(token_file))
    return process, line.split()[-1]


def has_shrunk(process, base) -> bool:
    """True when the memory of a process is again within 32 MiB of `base`."""
    return resident(process) < base + 32 * MIB


def large_request() -> bytes:
    """A request of 60 MiB that is refused after it was read, because it has no visualizations."""
    spec = spec_pb2.JobSpec(model="null", images=[spec_pb2.Image(encoded=bytes(LARGE))])
    return visualization_pb2.VisualizeRequest(spec=spec).SerializeToString()


def run_in_threads(count, call) -> Counter:
    """Run `call(number)` in `count` threads and count the outcomes."""

    def run(number):
        try:
            call(number)
        except grpc.RpcError as error:
            return error.code().name, bool(rpc_status.from_call(error))
        return "OK"

    with ThreadPoolExecutor(count) as threads:
        return Counter(threads.map(run, range(count)))


@pytest.mark.parametrize("connections", [24, 1])
def test_concurrent_large_calls_use_bounded_memory_and_release_it(server, scale, connections):
    process, target = server
    request = large_request()
    with contextlib.ExitStack() as stack, BackgroundCaller(target) as ordinary_caller:
        channels = [stack.enter_context(grpc.insecure_channel(target, OPTIONS)) for _ in range(connections)]
        calls = [channel.unary_unary(VISUALIZE) for channel in channels]
        base = resident(process)
        reset_peak(process)
        for _ in range(scale):
            outcomes = run_in_threads(24, lambda number: calls[number % connections](request, timeout=60))
            assert set(outcomes) <= {("INVALID_ARGUMENT", True), ("RESOURCE_EXHAUSTED", True)}, outcomes
        # 3 copies of the budget of 256 MiB, and what arrived between two checks of it
        assert peak(process) - base < 24 * LARGE
    assert not ordinary_caller.errors
    assert ordinary_caller.slowest < BUSY_SECONDS
    until(lambda: has_shrunk(process, base), 10)


def test_all_large_calls_of_the_sdk_succeed_one_after_another(server):
    process, target = server
    pixels = np.zeros((1, 4000, 4000, 3), np.uint8)  # 46 MiB
    reset_peak(process)
    base = resident(process)
    with Client(target, timeout=60) as client:
        outcomes = run_in_threads(4, lambda _: client.visualize(pixels, [Saliency()], model="null"))
    assert outcomes == {"OK": 4}
    assert peak(process) - base < 800 * MIB
    until(lambda: has_shrunk(process, base), 10)


@pytest.mark.parametrize("path", [CHECK, REFLECTION])
def test_callers_without_a_token_cannot_fill_memory_through_open_methods(guarded, token, scale, path):
    process, target = guarded
    with BackgroundCaller(target, token=token) as ordinary_caller, contextlib.ExitStack() as stack:
        base = resident(process)
        reset_peak(process)
        senders = [stack.enter_context(PartialSender(target)) for _ in range(8 * scale)]
        for sender in senders:
            number = sender.call(path, LARGE)
            sender.send(number, LARGE - 1000)
            until(lambda: sender.listen(0.1) or number in sender.ended, 5)  # noqa: B023
            until(lambda: number in sender.ended or not sender.listen(1), 5)  # noqa: B023
            assert number in sender.ended
        assert peak(process) - base < 200 * MIB
    assert not ordinary_caller.errors
    assert ordinary_caller.slowest < BUSY_SECONDS
    until(lambda: has_shrunk(process, base), 10)


def test_a_caller_without_a_token_sends_no_byte_beyond_the_initial_window(guarded):
    process, target = guarded
    base = resident(process)
    with PartialSender(target) as sender:
        for path in (VISUALIZE, GET_JOB):
            number = sender.call(path, LARGE)
            assert sender.send(number, LARGE, seconds=2) <= 256 << 10
    assert resident(process) - base < 16 * MIB


def test_unfinished_messages_are_refused_at_the_budget_and_freed(server, scale):
    process, target = server
    with contextlib.ExitStack() as stack, BackgroundCaller(target) as ordinary_caller:
        base = resident(process)
        reset_peak(process)
        senders = [stack.enter_context(PartialSender(target)) for _ in range(10 * scale)]
        for sender in senders:
            sender.send(sender.call(VISUALIZE, LARGE), LARGE - 1000)
        assert peak(process) - base < 450 * MIB

        def refused() -> int:
            for sender in senders:
                sender.listen(0.01)
            return sum(bool(sender.ended) for sender in senders)

        until(lambda: refused() >= 6, 10)
    assert not ordinary_caller.errors
    assert ordinary_caller.slowest < BUSY_SECONDS
    until(lambda: has_shrunk(process, base), 10)


def test_unfinished_messages_over_tls_are_refused_and_freed(service, tmp_path):
    certificates = ensure_certificates(tmp_path / "tls", ["127.0.0.1"])
    pair = certificates.server
    flags = ("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
    process, line = service.start("convlens.server", "--port", "0", *flags)
    target = line.split()[-1]
    context = ssl.create_default_context(cafile=certificates.ca.certificate)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with BackgroundCaller(target, tls=client_tls(certificates)) as ordinary_caller:
        base = resident(process)
        reset_peak(process)
        with PartialSender(target, context.wrap_socket) as sender:
            for _ in range(4):
                sender.send(sender.call(VISUALIZE, LARGE), LARGE - 1000)
            until(lambda: sender.listen(0.1) or sender.ended, 5)
            assert sender.ended
        assert peak(process) - base < 300 * MIB
    assert not ordinary_caller.errors
    until(lambda: has_shrunk(process, base), 10)


def test_compressed_requests_are_refused(server):
    process, target = server
    base = resident(process)
    with grpc.insecure_channel(target, OPTIONS) as channel:
        call = channel.unary_unary(VISUALIZE)
        request = large_request()
        outcomes = run_in_threads(2, lambda _: call(request, compression=grpc.Compression.Gzip))
    assert outcomes == {("UNIMPLEMENTED", False): 2}
    assert resident(process) - base < 32 * MIB


def test_a_method_without_images_refuses_a_large_request(server):
    _, target = server
    with grpc.insecure_channel(target, OPTIONS) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(GET_JOB)(bytes(80 << 10))
    status = rpc_status.from_call(refused.value)
    assert (refused.value.code(), status.message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"request: is {80 << 10} bytes; allowed: {64 << 10}",
    )


@pytest.mark.parametrize("edge", [1500, 2500])
def test_the_error_of_an_oversized_request_gives_its_size_and_the_limit(service, edge):
    _, line = service.start("convlens.server", "--port", "0", "--max-request-bytes", str(4 * MIB))
    pixels = np.zeros((edge, edge, 3), np.uint8)  # below and above twice the limit
    with Client(line.split()[-1], timeout=30) as client, pytest.raises(InvalidArgument) as refused:
        client.visualize(pixels, [Saliency()], model="null")
    assert refused.value.reason == "REQUEST_TOO_LARGE"
    assert refused.value.field == "request"
    assert str(4 * MIB) in refused.value.message
    assert str(edge * edge * 3)[:3] in refused.value.message


def test_too_many_calls_of_one_tenant_are_refused_with_details(service, token_file, token):
    other = new_token(token_file, "other", "read", "submit")
    _, line = service.start("convlens.server", "--port", "0", "--max-calls", "32", "--tokens", str(token_file))
    target = line.split()[-1]

    def kinds(error):
        status = rpc_status.from_call(error)
        return {detail.TypeName() for detail in status.details}

    with grpc.insecure_channel(target, OPTIONS) as channel, Client(target, token=other, timeout=10) as other_client:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        watches = [watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
        for stream in watches:
            next(stream)
        with pytest.raises(grpc.RpcError) as refused:
            next(watch(health_pb2.HealthCheckRequest()))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = (error_details_pb2.ErrorInfo, error_details_pb2.QuotaFailure, error_details_pb2.RetryInfo)
        assert kinds(refused.value) == {detail.DESCRIPTOR.full_name for detail in details}
        with Client(target, token=token, timeout=0.5) as client:
            metadata = (("authorization", f"Bearer {token}"),)
            finish = threading.Event()

            def no_requests():
                finish.wait()
                yield from ()

            visualize = channel.stream_stream("/convlens.v1.VisualizationService/Visualize")  # the same on the wire
            streams = [visualize(no_requests(), metadata=metadata) for _ in range(16)]
            until(lambda: _is_refused(client))
            assert other_client.visualize(PHOTO, [Saliency()], model="null")  # another tenant's calls succeed
            for stream in streams:
                stream.cancel()
            finish.set()
            until(lambda: not _is_refused(client))


def _is_refused(client) -> bool:
    try:
        client.server_info()
    except Overloaded as error:
        return error.reason == "SERVER_FULL"
    return False


def test_connections_are_bounded_and_new_ones_accepted_after_others_close(service):
    process, line = service.start("convlens.server", "--port", "0", "--max-connections", "8")
    target = line.split()[-1]
    host, _, port = target.rpartition(":")
    base = resident(process)
    with BackgroundCaller(target) as ordinary_caller, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection((host, int(port)), timeout=5)) for _ in range(40)]

        def closed() -> int:
            count = 0
            for connection in idle:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    count += connection.recv(1 << 16) == b""
            return count

        until(lambda: closed() >= 30, 10)
        assert ordinary_caller.call() < BUSY_SECONDS
    until(lambda: _is_served(target), 10)
    assert resident(process) - base < 16 * MIB
    assert not ordinary_caller.errors


def _is_served(target) -> bool:
    with grpc.insecure_channel(target, OPTIONS) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return True


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(service):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        processes = [service.server()[0], service.worker("null=null")]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for process in processes:
        limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
        open_files = next(line for line in limits if "open files" in line)
        assert f"{hard} {hard}" in " ".join(open_files.split())


def test_the_job_of_a_half_open_caller_is_cancelled(service, server, scale):
    if scale == 1:
        pytest.skip("the server's keepalive takes 30 seconds")
    _, target = server
    worker = service.worker("other=null")
    with proxied(int(target.rpartition(":")[2])) as proxy, Client(target) as client:
        until(lambda: any(model.name == "other" for model in client.models()))
        worker.send_signal(signal.SIGSTOP)  # so that the job waits
        try:
            with grpc.insecure_channel(f"127.0.0.1:{proxy.port}", OPTIONS) as channel:
                pixels = spec_pb2.Image(pixels=tensors.encode(PHOTO))
                spec = spec_pb2.JobSpec(model="other", images=[pixels])
                spec.visualizations.add().saliency.SetInParent()
                request = visualization_pb2.VisualizeRequest(spec=spec)
                call = Stubs(channel).visualizations.Visualize(request)
                job_id = next(call).job.id
                proxy.half_open()
                until(lambda: client.job(job_id).status().state == job_pb2.JOB_STATE_CANCELLED, 45)
        finally:
            worker.send_signal(signal.SIGCONT)
