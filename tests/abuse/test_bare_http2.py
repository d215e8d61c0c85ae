"""Callers that speak HTTP/2 by hand: what no gRPC library would send, and windows that never open."""

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


def status(target, name=""):
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status


PATHS = [b"/\xff", b"/convlens.v1.JobService/\xc3", b"\xff", b"/grpc.health.v1.Health/\xffWatch"]


def test_a_path_that_is_no_text_ends_its_call_and_nothing_else(start_service):
    probe = f"127.0.0.1:{free_port()}"
    service = start_service(health_address=probe)
    service.worker("null=null")
    process, target = service.server()
    with BackgroundCaller(target) as neighbour:
        for address, path in itertools.product((target, probe), PATHS):
            with PacedReader(address) as caller:
                calls = [caller.call(path, b"") for _ in range(3)]
                until(lambda caller=caller, calls=calls: caller.listen(1) and caller.ended == set(calls))
                assert all(b"Method not found" in caller.headers[it] for it in calls)
            assert status(address) == SERVING
        neighbour.call()
    assert not neighbour.errors
    assert process.poll() is None


@pytest.fixture
def alone(tmp_path):
    """A service whose Valkey no other one uses."""
    (tmp_path / "valkey").mkdir()
    with durable_valkey(tmp_path / "valkey") as valkey, running(tmp_path, valkey, drain_grace=1) as service:
        yield service


def test_who_watches_health_and_does_not_read_freezes_nobody(alone):
    worker = alone.worker("null=null")
    process, target = alone.server()
    with PacedReader(target) as caller:
        for _ in range(100):
            caller.call("/grpc.health.v1.Health/Watch", b"")
        assert status(target) == SERVING
        worker.send_signal(signal.SIGKILL)
        until(lambda: status(target) != SERVING, 20)
        process.terminate()
        assert process.wait(20) == 0
