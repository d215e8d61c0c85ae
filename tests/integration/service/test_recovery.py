"""The SDK and the service recover from killed processes, faulty servers, forks and concurrent threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from processes import durable_valkey, running, until

from convlens.client import AsyncClient, Client, DataCorrupted, GradCAM, Overloaded, Saliency, Unavailable
from convlens.client.stubs import Stubs
from convlens.v1 import (
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    result_pb2,
    spec_pb2,
    tensors,
    visualization_pb2,
    visualization_pb2_grpc,
)  # fmt: skip

IMAGE = np.zeros((224, 224, 3), np.uint8)
JOB = "0123456789abcdef" * 2
SHORTLY = duration_pb2.Duration(nanos=10_000_000)


def test_a_killed_workers_job_is_computed_by_another_worker(tmp_path, valkey):
    with running(tmp_path, valkey, lease=1) as service:
        first = service.worker("null=null,device_ms=3000+0")
        _, target = service.server()
        with Client(target, timeout=60) as client:
            until(client.models)
            job = client.submit(IMAGE, [GradCAM()])
            until(lambda: job.status().state == job_pb2.JOB_STATE_RUNNING)
            first.kill()
            service.worker("null=null")
            result = job.result()
            status = job.status()
        assert result["grad_cam"].shape == (1, 14, 14)
        assert (status.state, status.attempts) == (job_pb2.JOB_STATE_SUCCEEDED, 2)


def test_a_paused_worker_cannot_overwrite_a_result_and_continues_to_work(tmp_path, valkey):
    with running(tmp_path, valkey, lease=1) as service:
        paused = service.worker("null=null,device_ms=2000+0")
        _, target = service.server()
        with Client(target, timeout=60) as client:
            until(client.models)
            job = client.submit(IMAGE, [GradCAM()])
            until(lambda: job.status().state == job_pb2.JOB_STATE_RUNNING)
            paused.send_signal(signal.SIGSTOP)
            other = service.worker("null=null")
            job.result()
            first_status = job.status()
            paused.send_signal(signal.SIGCONT)
            other.terminate()
            other.wait(30)
            assert client.grad_cam(IMAGE)["grad_cam"].shape == (1, 14, 14)
            assert job.status() == first_status


def test_a_call_survives_the_restart_of_its_server(tmp_path, valkey):
    with running(tmp_path, valkey) as service:
        service.worker("null=null,device_ms=1500+0")
        server, target = service.server()
        with Client(target, timeout=60) as client, futures.ThreadPoolExecutor(1) as pool:
            until(client.models)
            future = pool.submit(client.visualize, IMAGE, [Saliency(), GradCAM()])
            until(lambda: list(client.jobs("running")))
            server.kill()
            server.wait()
            service.server(port=int(target.rpartition(":")[2]))
            assert future.result()["saliency"].shape == (1, 224, 224)


def test_a_result_stream_is_resumed_after_its_server_was_killed(tmp_path, valkey):
    with running(tmp_path, valkey, chunk_bytes=4096) as service:
        service.worker("null=null")
        server, target = service.server()
        with Client(target, timeout=60) as client, futures.ThreadPoolExecutor(1) as pool:
            until(client.models)
            future = pool.submit(client.activations, [IMAGE] * 2, "block1_conv1")
            until(lambda: list(client.jobs("succeeded")))
            server.kill()
            server.wait()
            assert not future.done()
            service.server(port=int(target.rpartition(":")[2]))
            assert future.result()["activations/block1_conv1"].shape == (2, 224, 224, 64)
            assert [job.attempts for job in client.jobs()] == [1]


def test_a_call_cancelled_while_its_job_is_submitted_cancels_the_job(tmp_path):
    (tmp_path / "valkey").mkdir()
    payloads = tmp_path / "payloads"
    with (
        durable_valkey(tmp_path / "valkey") as valkey,
        running(tmp_path, valkey, lease=10, payload_dir=payloads) as service,
    ):
        service.worker("null=null,device_ms=1000+0")
        _, target = service.server()
        with Client(target, timeout=60) as client, grpc.insecure_channel(target) as channel:
            until(client.models)
            os.kill(valkey._process.pid, signal.SIGSTOP)
            spec = spec_pb2.JobSpec(
                images=[spec_pb2.Image(pixels=tensors.encode(IMAGE))],
                visualizations=[spec_pb2.Visualization(saliency=spec_pb2.Saliency())],
            )
            call = Stubs(channel).visualizations.Visualize(visualization_pb2.VisualizeRequest(spec=spec))
            until(lambda: any(path.is_file() for path in payloads.iterdir()))  # the server now waits for Redis
            call.cancel()
            os.kill(valkey._process.pid, signal.SIGCONT)
            (job,) = until(lambda: [status for status in client.jobs() if status.state >= job_pb2.JOB_STATE_SUCCEEDED])
            assert (job.state, job.error.reason) == (job_pb2.JOB_STATE_CANCELLED, "ABANDONED")


def test_a_client_works_in_forked_processes(null_target):
    with Client(null_target, timeout=60) as client:
        client.grad_cam(IMAGE)
        for _ in range(3):
            pid = os.fork()
            if not pid:
                code = 1
                with contextlib.suppress(BaseException):
                    code = int(client.grad_cam(IMAGE)["grad_cam"].shape != (1, 14, 14))
                os._exit(code)
            client.grad_cam(IMAGE)
            assert os.waitpid(pid, 0)[1] == 0
        client.grad_cam(IMAGE)


def test_a_client_can_be_shared_by_threads(client):
    with futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: client.grad_cam(IMAGE), range(64)))
    assert len({result.job_id for result in results}) == 64


def test_an_asyncio_client_works_in_several_event_loops(null_target):
    client = AsyncClient(null_target, timeout=60)
    for _ in range(3):
        assert asyncio.run(client.grad_cam(IMAGE))["grad_cam"].shape == (1, 14, 14)


class FaultyService(
    visualization_pb2_grpc.VisualizationServiceServicer,
    job_pb2_grpc.JobServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
):
    """A service with one fixed result, which first makes the given faults, one after another.

    Faults are "refuse" (an error instead of a response), "break" (an error in the middle of a stream) and "corrupt"
    (wrong bytes). ": overloaded" makes the error RESOURCE_EXHAUSTED, "for hours" gives it a long retry delay.
    """

    def __init__(self, faults) -> None:
        self.faults = list(faults)
        self.request_ids = []
        self.offsets = []
        array = np.arange(3000, dtype=np.float32).reshape(1, 30, 100)
        self.bytes = bytes(tensors.buffer_of(array))
        self.header = result_pb2.ResultHeader(
            tensors=[tensors.describe(array, "saliency")],
            images=[result_pb2.ImageReport()],
            total_bytes=len(self.bytes),
        )

    def Visualize(self, request, context):
        self.request_ids.append(request.request_id)
        response = visualization_pb2.VisualizeResponse
        self._fault(context, "refuse")
        yield response(job=job_pb2.Job(id=JOB))
        yield response(header=self.header)
        yield from (response(chunk=chunk) for chunk in self._chunks(0, context))

    def ReadJobResult(self, request, context):
        self.offsets.append(request.offset)
        response = job_pb2.ReadJobResultResponse
        yield response(header=self.header)
        yield from (response(chunk=chunk) for chunk in self._chunks(request.offset, context))

    def GetServerInfo(self, request, context):
        self._fault(context, "refuse")
        return model_pb2.GetServerInfoResponse(version="0.1.0")

    def _chunks(self, offset, context):
        while offset < len(self.bytes):
            data = self.bytes[offset : offset + 1000]
            if self.faults and self.faults[0] == "corrupt" and offset >= 4000:
                self.faults.pop(0)
                data = bytes(len(data))
            yield result_pb2.ResultChunk(offset=offset, data=data)
            offset += len(data)
            if offset >= 3000:
                self._fault(context, "break")

    def _fault(self, context, kind):
        """End the call with the next fault if it is of this kind."""
        if self.faults and self.faults[0].split(":")[0] == kind:
            fault = self.faults.pop(0)
            is_overloaded = "overloaded" in fault
            code = grpc.StatusCode.RESOURCE_EXHAUSTED if is_overloaded else grpc.StatusCode.UNAVAILABLE
            status = status_pb2.Status(code=code.value[0], message="injected fault")
            if is_overloaded or fault.endswith("for hours"):
                delay = duration_pb2.Duration(seconds=7200) if fault.endswith("for hours") else SHORTLY
                retry = any_pb2.Any()
                retry.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
                status.details.append(retry)
            context.abort_with_status(rpc_status.to_status(status))


@contextlib.contextmanager
def faulty_server(*faults):
    """Run a FaultyService and yield it with its target."""
    service = FaultyService(faults)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    visualization_pb2_grpc.add_VisualizationServiceServicer_to_server(service, server)
    job_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield service, f"127.0.0.1:{port}"
    finally:
        server.stop(None)


def saliency(kind, target):
    """Make one saliency call by the synchronous or the asyncio client."""
    if kind == "sync":
        with Client(target, timeout=60) as client:
            return client.saliency(IMAGE)

    async def call():
        async with AsyncClient(target, timeout=60) as client:
            return await client.saliency(IMAGE)

    return asyncio.run(call())


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_calls_to_unreachable_and_overloaded_servers_are_retried_under_one_request_id(kind):
    with faulty_server("refuse", "refuse: overloaded", "refuse") as (service, target):
        assert saliency(kind, target)["saliency"].shape == (1, 30, 100)
        assert len(service.request_ids) == 4
        assert len(set(service.request_ids)) == 1


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_a_broken_stream_is_resumed_at_its_offset(kind):
    with faulty_server("break", "break") as (service, target):
        array = saliency(kind, target)["saliency"]
        np.testing.assert_array_equal(array.ravel(), np.arange(3000, dtype=np.float32))
        assert service.offsets == [3000, 4000]
        assert len(service.request_ids) == 1


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_bytes_with_a_wrong_checksum_are_an_error(kind):
    with faulty_server("corrupt") as (_, target), pytest.raises(DataCorrupted, match="CRC-32"):
        saliency(kind, target)


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
@pytest.mark.parametrize(("fault", "error"), [("refuse:", Unavailable), ("refuse: overloaded", Overloaded)])
def test_no_call_waits_for_a_retry_delay_beyond_its_deadline(kind, fault, error):
    with faulty_server(fault, f"{fault} for hours") as (service, target), pytest.raises(error, match="injected fault"):
        saliency(kind, target)
    assert len(service.request_ids) == 2


def test_the_error_of_an_unreachable_server_names_its_target():
    with Client("127.0.0.1:1", timeout=2) as client, pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        client.server_info()


def test_threads_that_start_together_share_one_channel(null_target):
    with Client(null_target, timeout=60) as client:
        barrier, stubs = threading.Barrier(8), []

        def connect():
            barrier.wait()
            stubs.append(client._calls.transport.session().stubs)

        threads = [threading.Thread(target=connect) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, stubs))) == 1
