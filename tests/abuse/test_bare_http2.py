"""Clients that speak bare HTTP/2 cannot stop a server: invalid paths, and streams that are never read."""

from __future__ import annotations

import itertools
import signal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from paced_reader import PacedReader
from processes import durable_valkey, running, until
from resource_usage import BackgroundCaller

from convlens.local.valkey import free_port

SERVING = health_pb2.HealthCheckResponse.SERVING


def health(target, name=""):
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status


PATHS = [b"/\xff", b"/convlens.v1.JobService/\xc3", b"\xff", b"/grpc.health.v1.Health/\xffWatch"]


def test_a_path_that_is_not_text_ends_only_its_call(start_service):
    probe = f"127.0.0.1:{free_port()}"
    service = start_service(health_address=probe)
    service.worker("null=null")
    process, target = service.server()
    with BackgroundCaller(target) as ordinary_caller:
        for address, path in itertools.product((target, probe), PATHS):
            with PacedReader(address) as caller:
                calls = [caller.call(path, b"") for _ in range(3)]
                until(lambda caller=caller, calls=calls: caller.listen(1) and caller.ended == set(calls))
                assert all(b"Method not found" in caller.headers[call] for call in calls)
            assert health(address) == SERVING
        ordinary_caller.call()
    assert not ordinary_caller.errors
    assert process.poll() is None


@pytest.fixture
def separate_service(tmp_path):
    """A service with its own Valkey."""
    (tmp_path / "valkey").mkdir()
    with durable_valkey(tmp_path / "valkey") as valkey, running(tmp_path, valkey, drain_grace=1) as service:
        yield service


def test_unread_health_watches_do_not_block_the_server(separate_service):
    worker = separate_service.worker("null=null")
    process, target = separate_service.server()
    with PacedReader(target) as caller:
        for _ in range(100):
            caller.call("/grpc.health.v1.Health/Watch", b"")
        assert health(target) == SERVING
        worker.send_signal(signal.SIGKILL)
        until(lambda: health(target) != SERVING, 20)
        process.terminate()
        assert process.wait(20) == 0
