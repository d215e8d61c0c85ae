"""Which requests are refused, and by which error, by the fake server and by a real one."""

from __future__ import annotations

import uuid

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from convlens.client import (
    ALL_UNITS,
    Activations,
    AsyncClient,
    ConvlensError,
    GradCAM,
    InvalidArgument,
    NotFound,
    Output,
    Result,
    Saliency,
    TopK,
)
from convlens.v1 import job_pb2, spec_pb2, tensors, visualization_pb2

PHOTO = np.random.default_rng(6).integers(0, 256, (16, 12, 3), np.uint8)
PHOTOS = np.stack([PHOTO, PHOTO[::-1]])
IMAGE = spec_pb2.Image(pixels=tensors.encode(PHOTO))
FLOATS = spec_pb2.Image(pixels=tensors.encode(np.full((8, 8, 3), 0.5, np.float32)))
NOISE = bytes(range(64))
"""A file that the SDK does not recognise, and sends."""

REFUSED = [
    ("spec.images", {"images": [PHOTO] * 65}),
    ("spec.images[1].encoded", {"images": [PHOTO, NOISE]}),
    ("spec.visualizations", {"visualizations": []}),
    ("spec.visualizations", {"visualizations": [GradCAM(f"block{i}_pool") for i in range(33)]}),
    ("spec.visualizations[1]", {"visualizations": [GradCAM(), GradCAM()]}),
    ("spec.visualizations[1]", {"visualizations": [GradCAM(), GradCAM("block5_conv3")]}),
    ("spec.visualizations[0].grad_cam.layer", {"visualizations": [GradCAM("nowhere")]}),
    ("spec.visualizations[0].grad_cam.layer", {"visualizations": [GradCAM("fc1")]}),
    ("spec.visualizations[0].grad_cam.layer", {"scored_layer": "block2_conv1"}),
    ("spec.visualizations[0].grad_cam.signed", {"visualizations": [GradCAM(method="score_cam", signed=True)]}),
    (
        "spec.visualizations[0].saliency.method",
        {"visualizations": [Saliency("guided_grad_cam")], "scored_layer": "block2_conv1"},
    ),
    ("spec.visualizations[0].activations.layers", {"visualizations": [Activations([])]}),
    ("spec.visualizations[0].activations.layers[1]", {"visualizations": [Activations(["fc1", "nowhere"])]}),
    ("spec.visualizations[0].activations.channels", {"visualizations": [Activations("fc1", [3, 3])]}),
    ("spec.visualizations[0].activations.channels[1]", {"visualizations": [Activations("fc1", [0, 4096])]}),
    ("spec.visualizations[0]", {"visualizations": [Activations(["fc1", "fc1"])]}),
    ("spec.visualizations[0].output.height", {"visualizations": [Activations("fc1", output=Output((5, 5)))]}),
    ("spec.visualizations[0].output.width", {"visualizations": [GradCAM(output=Output((5, 4097)))]}),
    ("spec.targets", {"target": TopK(17)}),
    ("spec.targets[0].top_k", {"target": TopK(1001)}),
    ("spec.targets[0].index", {"target": 1000}),
    ("spec.targets[1].index", {"images": PHOTOS, "target": [1, 5000]}),
    ("spec.targets[0].label", {"target": "crane"}),
    ("spec.targets[0].label", {"target": "unheard of"}),
    ("spec.targets[0].label", {"target": "thing 1", "scored_layer": "fc1"}),
    ("spec.targets[0].indices", {"target": [[3, 3]]}),
    ("spec.targets[0].indices.values[1]", {"target": [[3, 1000]]}),
    ("spec.targets[0].labels.values[1]", {"target": [["thing 3", "unheard of"]]}),
    ("spec.scored_layer", {"scored_layer": "nowhere"}),
    ("spec.predictions", {"predictions": 1001}),
    ("spec.timeout", {"timeout": 4000.0}),
    ("request_id", {"request_id": "no uuid"}),
]
WIRE = [
    ("spec.images[0]", {"images": [spec_pb2.Image()]}),
    *(
        ("spec.images[0].encoded", {"images": [spec_pb2.Image(encoded=data)]})
        for data in (b"", b"no image", b"%PDF-1.7")
    ),
    ("spec.images[0].pixels.data", {"images": [FLOATS]}),
    ("spec.images[0].pixels.shape", {"images": [spec_pb2.Image(pixels=tensors.encode(PHOTOS))]}),
    ("spec.images[0].pixels.datatype", {"images": [spec_pb2.Image(pixels=tensors.encode(PHOTO.astype(np.int64)))]}),
    ("spec.images[0].value_range", {"images": [spec_pb2.Image(pixels=IMAGE.pixels, value_range=2)]}),
    ("spec.images[0].value_range", {"images": [spec_pb2.Image(pixels=FLOATS.pixels, value_range=99)]}),
    ("spec.visualizations[0]", {"visualizations": [spec_pb2.Visualization()]}),
    (
        "spec.visualizations[0].saliency.method",
        {"visualizations": [spec_pb2.Visualization(saliency=spec_pb2.Saliency(method=99))]},
    ),
    (
        "spec.visualizations[0].saliency.reduction",
        {"visualizations": [spec_pb2.Visualization(saliency=spec_pb2.Saliency(reduction=99))]},
    ),
    (
        "spec.visualizations[0].grad_cam.size",
        {"visualizations": [spec_pb2.Visualization(grad_cam=spec_pb2.GradCam(size=99))]},
    ),
    (
        "spec.visualizations[0].output.datatype",
        {"visualizations": [spec_pb2.Visualization(saliency={}, output=spec_pb2.Output(datatype=4))]},
    ),
    (
        "spec.visualizations[0].output.normalization",
        {"visualizations": [spec_pb2.Visualization(saliency={}, output=spec_pb2.Output(normalization=9))]},
    ),
    ("spec.targets", {"targets": [spec_pb2.Target(index=1)] * 3}),
    (
        "spec.targets[1]",
        {
            "images": [IMAGE] * 2,
            "targets": [spec_pb2.Target(index=1), spec_pb2.Target(indices=spec_pb2.UnitIndices(values=[1]))],
        },
    ),
    ("spec.targets[0].indices", {"targets": [spec_pb2.Target(indices=spec_pb2.UnitIndices())]}),
    ("spec.priority", {"priority": 9}),
    ("spec.timeout", {"timeout": {"seconds": 0}}),
]


@pytest.mark.parametrize(("field", "options"), REFUSED)
def test_a_field_that_is_not_allowed_is_named(client, field, options):
    arguments = {"images": PHOTO, "visualizations": [GradCAM()]} | options
    with pytest.raises(InvalidArgument) as refused:
        client.submit(**arguments)
    assert (refused.value.reason, refused.value.field) == ("INVALID_FIELD", field)
    assert field in refused.value.message
    assert (refused.value.job_id, refused.value.retry_after) == ("", None)


@pytest.mark.parametrize(("field", "changes"), WIRE)
def test_a_field_that_the_sdk_never_sends_is_named_too(stubs, field, changes):
    fields = {"images": [IMAGE], "visualizations": [GradCAM().message()]} | changes
    with pytest.raises(grpc.RpcError) as refused:
        stubs.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=spec_pb2.JobSpec(**fields)))
    assert details_of(refused.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field)


def details_of(error):
    """The code, reason and field of a refused call."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return error.code(), info.reason, bad.field_violations[0].field if bad.field_violations else ""


def test_every_call_refuses_alike(client):
    for call in (
        lambda: client.grad_cam(PHOTO, "nowhere"),
        lambda: client.grad_cam(PHOTOS, "nowhere"),
        lambda: next(client.map([PHOTO], [GradCAM("nowhere")])),
    ):
        with pytest.raises(InvalidArgument) as refused:
            call()
        assert refused.value.field == "spec.visualizations[0].grad_cam.layer"


async def test_the_asynchronous_client_raises_the_same(targets):
    async with AsyncClient(targets[0], timeout=60) as client:
        with pytest.raises(InvalidArgument) as refused:
            await client.grad_cam(PHOTO, target=1000)
        with pytest.raises(NotFound) as unknown:
            await client.grad_cam(PHOTO, model="vgg99")
    assert refused.value.field == "spec.targets[0].index"
    assert unknown.value.field == "spec.model"


def test_an_unknown_model_is_not_found(client):
    for call, field in (
        (lambda: client.grad_cam(PHOTO, model="vgg99"), "spec.model"),
        (lambda: client.model("vgg99"), "name"),
    ):
        with pytest.raises(NotFound, match="served are: null, other") as refused:
            call()
        assert (refused.value.reason, refused.value.field) == ("MODEL_UNKNOWN", field)
    with pytest.raises(InvalidArgument) as refused:
        client.model("")
    assert refused.value.field == "name"


def test_an_unknown_job_is_not_found(client):
    for job_id, kind, reason, field in (
        ("0" * 32, NotFound, "JOB_UNKNOWN", ""),
        ("A" * 32, InvalidArgument, "INVALID_FIELD", "id"),
        ("", InvalidArgument, "INVALID_FIELD", "id"),
    ):
        job = client.job(job_id)
        for call in (job.status, job.cancel, job.delete, job.wait, job.result):
            with pytest.raises(ConvlensError) as refused:
                call()
            assert (type(refused.value), refused.value.reason, refused.value.field) == (kind, reason, field)


def test_a_request_id_is_for_one_request(client):
    request_id = str(uuid.uuid4())
    job = client.submit(PHOTO, [GradCAM()], request_id=request_id)
    assert client.submit(PHOTO, [GradCAM()], request_id=request_id.replace("-", "").upper()).id == job.id
    assert client.grad_cam(PHOTO, request_id=request_id).job_id == job.id
    with pytest.raises(InvalidArgument) as refused:
        client.submit(PHOTO, [Saliency()], request_id=request_id)
    assert (refused.value.reason, refused.value.field) == ("REQUEST_ID_REUSED", "request_id")
    assert refused.value.request_id == request_id


def test_pages_of_jobs_have_bounds(stubs):
    for field, value in (("page_size", 1001), ("page_size", -1), ("page_token", "x"), ("state", 77)):
        with pytest.raises(grpc.RpcError) as refused:
            stubs.jobs.ListJobs(job_pb2.ListJobsRequest(**{field: value}))
        assert details_of(refused.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field)


def test_a_result_too_large_for_one_message_is_refused(stubs):
    spec = spec_pb2.JobSpec(images=[IMAGE] * 6, visualizations=[Saliency().message()])
    with pytest.raises(grpc.RpcError) as refused:
        stubs.visualizations.VisualizeUnary(visualization_pb2.VisualizeUnaryRequest(spec=spec))
    assert details_of(refused.value) == (grpc.StatusCode.FAILED_PRECONDITION, "RESULT_TOO_LARGE", "")


def test_an_offset_beyond_the_result_is_refused(client, stubs):
    job = client.submit(PHOTO, [GradCAM()])
    total = job.wait().result_bytes
    for offset in (-1, total + 1):
        with pytest.raises(grpc.RpcError) as refused:
            list(stubs.jobs.ReadJobResult(job_pb2.ReadJobResultRequest(id=job.id, offset=offset)))
        assert details_of(refused.value) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "offset")


def test_in_map_an_image_that_is_refused_leaves_the_others(client):
    images = [PHOTO, NOISE, PHOTOS[1], PHOTO]
    outcomes = list(client.map(images, [GradCAM()], target=[1, 2, 1000, ALL_UNITS], errors="return", fresh=True))
    assert [type(outcome) for outcome in outcomes] == [Result, InvalidArgument, InvalidArgument, Result]
    assert outcomes[1].field.endswith("encoded")
    assert outcomes[2].field.endswith("index")
