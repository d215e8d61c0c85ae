"""The SDK retries calls that meet errors which only faults cause."""

from __future__ import annotations

from concurrent import futures

import grpc

from convlens.client import Client
from convlens.v1 import model_pb2, model_pb2_grpc


class StoppingService(model_pb2_grpc.ModelServiceServicer):
    """Answers its first call as a server that is stopping does: CANCELLED without details."""

    def __init__(self):
        self.calls = 0

    def GetServerInfo(self, request, context):
        self.calls += 1
        if self.calls == 1:
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        return model_pb2.GetServerInfoResponse(version="0.1.0")


def test_a_call_dropped_by_a_stopping_server_is_retried():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    model_pb2_grpc.add_ModelServiceServicer_to_server(StoppingService(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}", timeout=20) as client:
            assert client.server_info().version == "0.1.0"
    finally:
        server.stop(None)
