"""A whole result in one message: equal to the streamed one, or refused before anything is computed."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from processes import until

from convlens.client import AsyncClient, Client, GradCAM, Saliency, TopK
from convlens.v1 import spec_pb2, tensors
from convlens.v1.job_pb2 import JOB_STATE_CANCELLED, ListJobsRequest
from convlens.v1.visualization_pb2 import VisualizeRequest, VisualizeUnaryRequest

PIXELS = np.random.default_rng(2).integers(0, 256, (30, 20, 3), np.uint8)
IMAGE = spec_pb2.Image(pixels=tensors.encode(PIXELS))
SALIENCY = spec_pb2.Visualization(saliency=spec_pb2.Saliency())
LARGE = spec_pb2.JobSpec(images=[IMAGE] * 6, visualizations=[SALIENCY])


@pytest.fixture(scope="module")
def null_target(start_service, tmp_path_factory):
    """The target of a service with payloads in a folder and a model whose jobs take a minute."""
    service = start_service(payload_dir=tmp_path_factory.mktemp("payloads"))
    service.worker("null=null", "slow=null,device_ms=60000+0")
    return service.server()[1]


def jobs(stubs):
    return list(stubs.jobs.ListJobs(ListJobsRequest(page_size=1000)).jobs)


def test_a_unary_response_equals_the_streamed_one(stubs):
    spec = spec_pb2.JobSpec(images=[IMAGE], visualizations=[SALIENCY], fresh=True)
    header = stubs.visualizations.VisualizeUnary(VisualizeUnaryRequest(spec=spec)).header
    responses = stubs.visualizations.Visualize(VisualizeRequest(spec=spec))
    streamed = next(response.header for response in responses if response.HasField("header"))
    assert header.data == streamed.data
    assert len(header.data) == header.total_bytes == 224 * 224 * 4
    assert (header.tensors, header.images) == (streamed.tensors, streamed.images)


def test_a_result_too_large_for_one_message_is_refused_before_it_is_queued(stubs):
    before = len(jobs(stubs))
    with pytest.raises(grpc.RpcError) as caught:
        stubs.visualizations.VisualizeUnary(VisualizeUnaryRequest(spec=LARGE))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    (detail,) = rpc_status.from_call(caught.value).details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert info.reason == "RESULT_TOO_LARGE"
    assert "1204224 bytes is too large for one message of 1048576" in caught.value.details()
    assert len(jobs(stubs)) == before


def test_a_cancelled_call_cancels_its_job(stubs):
    spec = spec_pb2.JobSpec(images=[IMAGE], visualizations=[SALIENCY], model="slow")
    before = {job.id for job in jobs(stubs)}
    call = stubs.visualizations.VisualizeUnary.future(VisualizeUnaryRequest(spec=spec))
    (new_id,) = until(lambda: {job.id for job in jobs(stubs)} - before)
    call.cancel()
    until(lambda: next(job for job in jobs(stubs) if job.id == new_id).state == JOB_STATE_CANCELLED)


def record_calls(session, monkeypatch):
    """Return a list to which the names of the methods that a client calls are appended."""
    names = []
    stubs = session.stubs.visualizations
    for name in ("VisualizeUnary", "Visualize"):
        monkeypatch.setattr(stubs, name, RecordingMethod(getattr(stubs, name), name, names))
    return names


class RecordingMethod:
    """A method of a stub that appends its name to a list in each call."""

    def __init__(self, method, name, names):
        self.method, self.name, self.names = method, name, names

    def __call__(self, *args, **options):
        self.names.append(self.name)
        return self.method(*args, **options)

    def with_call(self, *args, **options):
        self.names.append(self.name)
        return self.method.with_call(*args, **options)


CASES = {
    "small": ([Saliency(), GradCAM()], None, ["VisualizeUnary"]),
    "larger than a message": ([Saliency()], TopK(6), ["VisualizeUnary", "Visualize"]),
}


@pytest.mark.parametrize(("visualizations", "target", "calls"), CASES.values(), ids=CASES)
def test_clients_use_a_unary_call_where_it_suffices(null_target, monkeypatch, visualizations, target, calls):
    with Client(null_target, timeout=60) as client:
        names = record_calls(client._calls.transport.session(), monkeypatch)
        result = client.visualize(PIXELS, visualizations, model="null", target=target)
        assert names == calls

    async def visualize():
        async with AsyncClient(null_target, timeout=60) as client:
            names = record_calls(await client._calls.transport.session(), monkeypatch)
            return await client.visualize(PIXELS, visualizations, model="null", target=target), names

    asynchronous_result, names = asyncio.run(visualize())
    assert names == calls
    assert list(asynchronous_result) == list(result)
    for name, array in asynchronous_result.items():
        np.testing.assert_array_equal(array, result[name])
    assert result["saliency"].shape == ((1, 6, 224, 224) if target else (1, 224, 224))


def test_results_of_several_images_are_streamed(null_target, monkeypatch):
    with Client(null_target, timeout=60) as client:
        names = record_calls(client._calls.transport.session(), monkeypatch)
        assert client.saliency([PIXELS] * 6, model="null")["saliency"].shape == (6, 224, 224)
        assert names == ["Visualize"]
