"""When a call is retried, and which error its caller gets when time runs out."""

from __future__ import annotations

import contextlib
import types
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from convlens.client import Client, DeadlineExceeded, Saliency, Unavailable
from convlens.client.connection import Connection
from convlens.client.retry import RetryPolicy
from convlens.v1 import result_pb2, tensors, visualization_pb2, visualization_pb2_grpc


class Failed(grpc.RpcError):
    """A call that ended with a bare status."""

    def __init__(self, code, details="details"):
        self.code = lambda: code
        self.details = lambda: details
        self.trailing_metadata = tuple


@pytest.fixture
def policy():
    return RetryPolicy(Connection("localhost:1", None, None), 60)


def test_a_deadline_exceeded_during_retries_does_not_hide_the_reason(policy):
    assert policy.delay_after(Failed(grpc.StatusCode.UNAVAILABLE)) > 0
    with pytest.raises(Unavailable, match="no Convlens server answers"):
        policy.delay_after(Failed(grpc.StatusCode.DEADLINE_EXCEEDED))


def test_the_delays_grow_to_two_seconds_and_end_with_the_timeout(monkeypatch):
    now = 0.0
    monkeypatch.setattr("convlens.client.retry.time", types.SimpleNamespace(monotonic=lambda: now))
    policy, delays = RetryPolicy(Connection("localhost:1", None, None), 60), []
    with contextlib.suppress(Unavailable):
        while True:
            delays.append(policy.delay_after(Failed(grpc.StatusCode.UNAVAILABLE)))
            now += delays[-1]
    assert 58 <= now < 60
    for n, delay in enumerate(delays):
        longest = min(2.0, 0.1 * 2**n)
        assert longest / 2 <= delay <= longest


def test_the_reason_is_the_latest_except_a_refusal_by_another_address_of_the_same_attempt(monkeypatch):
    now = 0.0
    monkeypatch.setattr("convlens.client.retry.time", types.SimpleNamespace(monotonic=lambda: now))
    connection = Connection("localhost:1", None, None, 60)
    policy, causes = RetryPolicy(connection, 60), []
    for now, details in (  # noqa: B007 - the clock
        (1.0, "Connection refused"),
        (1.1, "Endpoint closing"),
        (1.2, "Connection refused"),
        (9.0, "Connection refused"),
        (9.5, "No route to host"),
        (19.0, "Endpoint closing"),
    ):
        policy.delay_after(Failed(grpc.StatusCode.UNAVAILABLE, f"failed to connect to all addresses; {details}"))
        causes.append(policy._last_error.message.partition(": ")[2].partition(";")[0])
    no_route = "no route to localhost"
    assert causes == ["connection refused", "no reply", "no reply", "connection refused", no_route, "no reply"]


def test_a_deadline_exceeded_by_the_first_attempt_is_raised(policy):
    with pytest.raises(DeadlineExceeded):
        policy.delay_after(Failed(grpc.StatusCode.DEADLINE_EXCEEDED))


class OldService(visualization_pb2_grpc.VisualizationServiceServicer):
    """A server without VisualizeUnary."""

    def __init__(self):
        self.calls = []

    def VisualizeUnary(self, request, context):
        self.calls.append("unary")
        super().VisualizeUnary(request, context)

    def Visualize(self, request, context):
        self.calls.append("stream")
        if len(self.calls) == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
        array = np.zeros((1, 4, 4), np.float32)
        header = result_pb2.ResultHeader(tensors=[tensors.describe(array, "saliency")], data=array.tobytes())
        yield visualization_pb2.VisualizeResponse(header=header)


def test_a_server_without_unary_results_is_called_for_streams_from_then_on():
    service, server = OldService(), grpc.server(ThreadPoolExecutor(2))
    visualization_pb2_grpc.add_VisualizationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}", timeout=30) as client:
        assert client.visualize(b"\xff\xd8\xff", [Saliency()])["saliency"].shape == (1, 4, 4)
    assert service.calls == ["unary", "stream", "stream"]
    server.stop(None)
