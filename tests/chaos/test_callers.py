"""What the SDK makes of answers that only faults give."""

from __future__ import annotations

from concurrent import futures

import grpc

from convlens.client import Client
from convlens.v1 import model_pb2, model_pb2_grpc


class Stopping(model_pb2_grpc.ModelServiceServicer):
    """Its first answer is what a call gets that reaches a server just as it stops: CANCELLED, and not a word more."""

    def __init__(self):
        self.calls = 0

    def GetServerInfo(self, request, context):
        self.calls += 1
        if self.calls == 1:
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        return model_pb2.GetServerInfoResponse(version="0.1.0")


def test_a_call_that_a_stopping_server_drops_is_tried_again():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    model_pb2_grpc.add_ModelServiceServicer_to_server(Stopping(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}", timeout=20) as client:
            assert client.server_info().version == "0.1.0"
    finally:
        server.stop(None)
