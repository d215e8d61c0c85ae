"""A whole answer in one message: what a stream gives, or refused before anything is computed."""

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
    """Payloads in a folder, and a model whose jobs take long."""
    service = start_service(payload_dir=tmp_path_factory.mktemp("payloads"))
    service.worker("null=null", "slow=null,device_ms=60000+0")
    return service.server()[1]


def jobs(stubs):
    return list(stubs.jobs.ListJobs(ListJobsRequest(page_size=1000)).jobs)


def test_one_message_has_what_a_stream_has(stubs):
    spec = spec_pb2.JobSpec(images=[IMAGE], visualizations=[SALIENCY], fresh=True)
    header = stubs.visualizations.VisualizeUnary(VisualizeUnaryRequest(spec=spec)).header
    streamed = next(
        p.header for p in stubs.visualizations.Visualize(VisualizeRequest(spec=spec)) if p.HasField("header")
    )
    assert header.data == streamed.data
    assert len(header.data) == header.total_bytes == 224 * 224 * 4
    assert (header.tensors, header.images) == (streamed.tensors, streamed.images)


def test_a_result_that_is_too_large_for_it_is_refused_before_it_is_queued(stubs):
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


def test_a_call_that_goes_away_cancels_its_job(stubs):
    spec = spec_pb2.JobSpec(images=[IMAGE], visualizations=[SALIENCY], model="slow")
    before = {it.id for it in jobs(stubs)}
    call = stubs.visualizations.VisualizeUnary.future(VisualizeUnaryRequest(spec=spec))
    (job,) = until(lambda: [it for it in jobs(stubs) if it.id not in before])
    call.cancel()
    until(lambda: next(it for it in jobs(stubs) if it.id == job.id).state == JOB_STATE_CANCELLED)


def record_calls(session, monkeypatch):
    """The names of the methods that a client calls from now on."""
    called = []
    stubs = session.stubs.visualizations
    for name in ("VisualizeUnary", "Visualize"):
        monkeypatch.setattr(stubs, name, Noted(getattr(stubs, name), name, called))
    return called


class Noted:
    def __init__(self, method, name, called):
        self.method, self.name, self.called = method, name, called

    def __call__(self, *args, **options):
        self.called.append(self.name)
        return self.method(*args, **options)

    def with_call(self, *args, **options):
        self.called.append(self.name)
        return self.method.with_call(*args, **options)


CASES = {
    "small": ([Saliency(), GradCAM()], None, ["VisualizeUnary"]),
    "larger than a message": ([Saliency()], TopK(6), ["VisualizeUnary", "Visualize"]),
}


@pytest.mark.parametrize(("asked", "target", "calls"), CASES.values(), ids=CASES)
def test_the_clients_ask_for_one_message_where_it_will_do(null_target, monkeypatch, asked, target, calls):
    with Client(null_target, timeout=60) as client:
        called = record_calls(client._calls.transport.session(), monkeypatch)
        result = client.visualize(PIXELS, asked, model="null", target=target)
        assert called == calls

    async def ask():
        async with AsyncClient(null_target, timeout=60) as client:
            called = record_calls(await client._calls.transport.session(), monkeypatch)
            return await client.visualize(PIXELS, asked, model="null", target=target), called

    found, called = asyncio.run(ask())
    assert called == calls
    assert list(found) == list(result)
    for name in found:
        np.testing.assert_array_equal(found[name], result[name])
    assert result["saliency"].shape == ((1, 6, 224, 224) if target else (1, 224, 224))


def test_several_images_come_as_a_stream(null_target, monkeypatch):
    with Client(null_target, timeout=60) as client:
        called = record_calls(client._calls.transport.session(), monkeypatch)
        assert client.saliency([PIXELS] * 6, model="null")["saliency"].shape == (6, 224, 224)
        assert called == ["Visualize"]
