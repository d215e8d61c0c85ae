"""A rejected call frees its request at once, not when garbage is collected."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import grpc
import pytest

from convlens.server.auth.authenticator import Authenticator
from convlens.server.transport.calls import CallInterceptor, CallLimiter
from convlens.server.transport.grpc_server import make_server
from convlens.server.transport.receive_budget import ReceiveBudget
from convlens.v1 import job_pb2, job_pb2_grpc, spec_pb2, visualization_pb2, visualization_pb2_grpc
from convlens.v1.reasons import Reason
from convlens.v1.status_error import StatusError

MIB = 1 << 20
CALLS = 4


class Rejecting(visualization_pb2_grpc.VisualizationServiceServicer, job_pb2_grpc.JobServiceServicer):
    """Rejects each request, from a frame that holds it."""

    async def VisualizeUnary(self, request, context):
        await asyncio.sleep(0)
        raise StatusError(Reason.INTERNAL, f"{request.size} bytes")

    async def SubmitJob(self, request, context):
        raise StatusError(Reason.INVALID_FIELD, f"{request.size} bytes")

    async def Visualize(self, request, context):
        for image in request.images:
            raise StatusError(Reason.INTERNAL, f"{len(image)} bytes")
            yield


VALID = spec_pb2.JobSpec(images=[spec_pb2.Image(encoded=bytes(MIB))])
UNKNOWN_FIELD = b"\xf8\x7f\x01"


async def bytes_after_rejections(path, data):
    """Count the bytes that a server still holds of requests that it rejected."""
    budget = ReceiveBudget(64 * MIB, 0.25, 16 * MIB)
    calls = CallInterceptor("1", Authenticator(None), budget, CallLimiter(8, 1.0), 16 * MIB)
    server = make_server((), [calls])
    visualization_pb2_grpc.add_VisualizationServiceServicer_to_server(Rejecting(), server)
    job_pb2_grpc.add_JobServiceServicer_to_server(Rejecting(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(path)  # the same on the wire for every kind of method

            async def reject():
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(iter([data]), timeout=30).read()
                assert caught.value.code() in {grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT}

            await reject()
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(CALLS):
                await reject()
            for _ in range(100):  # the thread that parsed the last request may have it a moment longer
                held = tracemalloc.get_traced_memory()[0] - before
                if held < MIB:
                    break
                await asyncio.sleep(0.01)
            return held
    finally:
        await server.stop(0)


@pytest.mark.parametrize(
    ("path", "request_type"),
    [
        ("VisualizationService/VisualizeUnary", visualization_pb2.VisualizeUnaryRequest),
        ("VisualizationService/Visualize", visualization_pb2.VisualizeRequest),
        ("JobService/SubmitJob", job_pb2.SubmitJobRequest),
    ],
)
@pytest.mark.parametrize("extra", [b"", UNKNOWN_FIELD, b"\x07"], ids=["by the service", "unknown field", "malformed"])
def test_a_rejected_request_is_freed_at_once(path, request_type, extra):
    data = request_type(spec=VALID).SerializeToString() + extra
    gc.disable()
    tracemalloc.start()
    try:
        assert asyncio.run(bytes_after_rejections(f"/convlens.v1.{path}", data)) < MIB
    finally:
        tracemalloc.stop()
        gc.enable()
