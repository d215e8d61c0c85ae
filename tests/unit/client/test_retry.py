"""When a call is retried, and which error its caller gets when time runs out."""

from __future__ import annotations

import contextlib
import types
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from convlens.client import Client, DeadlineExceeded, Saliency, Unavailable
from convlens.client.connection import Connection
from convlens.client.retry import RetryPolicy
from convlens.v1 import job_pb2_grpc, result_pb2, tensors, visualization_pb2, visualization_pb2_grpc


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
        policy.delay_after(Failed(grpc.StatusCode.DEADLINE_EXCEEDED), lambda: False)


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


class EvictedResult(visualization_pb2_grpc.VisualizationServiceServicer, job_pb2_grpc.JobServiceServicer):
    """Its first stream breaks after the header, and the result is gone when the client resumes it."""

    def __init__(self):
        self.calls = []

    def Visualize(self, request, context):
        self.calls.append("visualize")
        array = np.full((1, 4, 4), len(self.calls), np.float32)
        header = result_pb2.ResultHeader(job_id="a", tensors=[tensors.describe(array, "saliency")])
        yield visualization_pb2.VisualizeResponse(header=header)
        if len(self.calls) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
        yield visualization_pb2.VisualizeResponse(chunk=result_pb2.ResultChunk(data=array.tobytes()))

    def ReadJobResult(self, request, context):
        self.calls.append("resume")
        error = any_pb2.Any()
        error.Pack(error_details_pb2.ErrorInfo(reason="RESULT_EXPIRED", domain="convlens"))
        status = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="expired", details=[error])
        context.abort_with_status(rpc_status.to_status(status))


def test_a_result_that_is_evicted_while_it_is_read_is_computed_again():
    service, server = EvictedResult(), grpc.server(ThreadPoolExecutor(2))
    visualization_pb2_grpc.add_VisualizationServiceServicer_to_server(service, server)
    job_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}", timeout=30) as client:
        result = client.visualize([b"\xff\xd8\xff"] * 2, [Saliency()])
    assert service.calls == ["visualize", "resume", "visualize"]
    assert (result["saliency"] == 3).all()
    server.stop(None)


def test_a_call_whose_time_runs_out_on_a_connected_server_is_too_late_whatever_failed_before(policy):
    policy.delay_after(Failed(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(DeadlineExceeded):
        policy.delay_after(Failed(grpc.StatusCode.DEADLINE_EXCEEDED), lambda: True)
