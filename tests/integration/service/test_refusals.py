"""Invalid requests are refused before a job is queued, with the code, the reason, the field and the allowed values."""

from __future__ import annotations

import io
import uuid
from pathlib import Path

import grpc
import hostile
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image
from processes import running, until

from convlens.client import Client, GradCAM, InvalidArgument, Overloaded, Saliency, Unavailable
from convlens.v1 import job_pb2, model_pb2, spec_pb2, tensor_pb2, tensors, visualization_pb2

PHOTO = (Path(__file__).parents[3] / "examples" / "photos" / "chelsea.png").read_bytes()
PIXELS = np.zeros((8, 8, 3), np.uint8)
CAM = spec_pb2.Visualization(grad_cam=spec_pb2.GradCam())
Target = spec_pb2.Target


def valid() -> spec_pb2.JobSpec:
    return spec_pb2.JobSpec(model="null", images=[spec_pb2.Image(encoded=PHOTO)], visualizations=[CAM])


def with_image(**source):
    spec = valid()
    spec.images[0].CopyFrom(spec_pb2.Image(**source))
    return spec


def changed(**fields):
    """A valid spec with some fields replaced."""
    spec = valid()
    for name, value in fields.items():
        spec.ClearField(name)
        spec.MergeFrom(spec_pb2.JobSpec(**{name: value}))
    return spec


def activations(**options):
    return changed(visualizations=[spec_pb2.Visualization(activations=spec_pb2.Activations(**options))])


def pixels(array, **changes):
    tensor = tensors.encode(array)
    for name, value in changes.items():
        tensor.ClearField(name)
        tensor.MergeFrom(tensor_pb2.Tensor(**{name: value}))
    return with_image(pixels=tensor)


def cam(**options):
    return spec_pb2.Visualization(grad_cam=spec_pb2.GradCam(**options))


def units_target(*units):
    return Target(indices=spec_pb2.UnitIndices(values=units))


def bomb() -> bytes:
    return encoded(Image.new("1", (12_000, 12_000)))


def encoded(image, fmt="PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, fmt)
    return file.getvalue()


def floats(value, value_range):
    spec = pixels(np.full((8, 8, 3), value, np.float32))
    spec.images[0].value_range = value_range
    return spec


TINY = spec_pb2.Image(pixels=tensors.encode(PIXELS))
REFUSED = {
    "spec.images": [changed(images=[]), changed(images=[TINY] * 65)],
    "spec.images[0]": [with_image(), with_image(encoded=bomb())],
    "spec.images[0].encoded": [
        *(
            with_image(encoded=data)
            for data in (b"no image", b"", b"%PDF-1.7", hostile.files()["a TIFF of one huge tile"])
        ),
        *(with_image(encoded=encoded(Image.new(mode, (8, 8)), "TIFF")) for mode in ("F", "I")),
    ],
    "spec.images[0].value_range": [
        with_image(encoded=PHOTO, value_range=spec_pb2.VALUE_RANGE_0_1),
        with_image(pixels=tensors.encode(PIXELS), value_range=spec_pb2.VALUE_RANGE_MINUS_1_1),
        floats(1, 99),
    ],
    "spec.images[0].pixels.datatype": [pixels(PIXELS.astype(np.int64)), pixels(PIXELS, datatype=99)],
    "spec.images[0].pixels.shape": [pixels(PIXELS[..., :2]), pixels(PIXELS[None])],
    "spec.images[0].pixels.data": [
        pixels(PIXELS, data=b"short"),
        pixels(np.full((8, 8, 3), np.nan, np.float32)),
        pixels(np.full((8, 8, 3), 256, np.float32)),
        *(floats(value, spec_pb2.VALUE_RANGE_UNSPECIFIED) for value in (0, 0.5, 1, -0.5)),
        floats(1.5, spec_pb2.VALUE_RANGE_0_1),
        floats(-1.5, spec_pb2.VALUE_RANGE_MINUS_1_1),
        pixels(PIXELS, shape=(1 << 40, 1 << 40, 3)),
    ],
    "spec.visualizations": [
        changed(visualizations=[]),
        changed(visualizations=[cam(layer=f"block{i}_pool") for i in range(33)]),
        changed(
            images=[TINY] * 64,
            visualizations=[
                spec_pb2.Visualization(activations=spec_pb2.Activations(layers=["block1_conv1", "block1_conv2"]))
            ],
        ),
    ],
    "spec.visualizations[0]": [
        changed(visualizations=[spec_pb2.Visualization()]),
        activations(layers=["fc1", "fc1"]),
    ],
    "spec.visualizations[1]": [changed(visualizations=[CAM, CAM])],
    "spec.visualizations[0].grad_cam.layer": [
        *(changed(visualizations=[cam(layer=layer)]) for layer in ("nope", "fc1")),
        changed(visualizations=[cam(layer="block3_conv1")], scored_layer="block3_conv1"),
        changed(scored_layer="block2_conv1"),
    ],
    "spec.visualizations[0].grad_cam.size": [changed(visualizations=[cam(size=99)])],
    "spec.visualizations[0].saliency.reduction": [
        changed(visualizations=[spec_pb2.Visualization(saliency=spec_pb2.Saliency(reduction=99))])
    ],
    "spec.visualizations[0].saliency.method": [
        changed(visualizations=[spec_pb2.Visualization(saliency=spec_pb2.Saliency(method=99))])
    ],
    "spec.visualizations[0].activations.layers": [activations()],
    "spec.visualizations[0].activations.layers[1]": [activations(layers=["fc1", "nope"])],
    "spec.visualizations[0].activations.channels": [activations(layers=["block1_conv1"], channels=[3, 3])],
    "spec.visualizations[0].activations.channels[1]": [
        activations(layers=["block1_conv1"], channels=[0, channel]) for channel in (-1, 64)
    ],
    "spec.targets": [
        changed(targets=[Target(index=1)] * 3),
        changed(targets=[Target(top_k=17)]),
    ],
    "spec.targets[1]": [
        changed(images=[TINY] * 2, targets=[units_target(1), other]) for other in (units_target(1, 2), Target(index=1))
    ],
    "spec.targets[0].index": [
        *(changed(targets=[Target(index=i)]) for i in (-1, 1000)),
        changed(visualizations=[cam(layer="block1_conv1")], scored_layer="block2_conv1", targets=[Target(index=128)]),
    ],
    "spec.targets[0].indices": [changed(targets=[units_target(*units)]) for units in ((), (1, 1))],
    "spec.targets[0].indices.values[1]": [changed(targets=[units_target(1, 5000)])],
    "spec.targets[0].top_k": [changed(targets=[Target(top_k=k)]) for k in (0, 1001)],
    "spec.scored_layer": [changed(scored_layer="nope")],
    "spec.predictions": [changed(predictions=n) for n in (-1, 1001)],
    "spec.priority": [changed(priority=9)],
    "spec.timeout": [changed(timeout={"seconds": s}) for s in (-1, 0, 4000)],
}


def refusal(call):
    """Make a call that is refused, and return its code, its message and its details by type."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    status = rpc_status.from_call(refused.value)
    details = {}
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
        for detail in status.details:
            message = kind()
            if detail.Unpack(message):
                details[kind.__name__] = message
    return refused.value.code(), status.message, details


@pytest.mark.parametrize(("field", "spec"), [(field, spec) for field, all_ in REFUSED.items() for spec in all_])
def test_an_invalid_field_is_named_and_no_job_is_queued(stubs, field, spec):
    before = len(stubs.jobs.ListJobs(job_pb2.ListJobsRequest()).jobs)
    code, message, details = refusal(lambda: stubs.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=spec)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in details["BadRequest"].field_violations] == [field]
    assert details["ErrorInfo"].reason == "INVALID_FIELD"
    assert field in message
    assert len(stubs.jobs.ListJobs(job_pb2.ListJobsRequest()).jobs) == before


def test_all_methods_refuse_an_invalid_spec_with_the_same_error(stubs):
    spec = changed(predictions=-1)
    expected = refusal(lambda: stubs.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=spec)))
    request = visualization_pb2.VisualizeRequest(spec=spec)
    assert refusal(lambda: list(stubs.visualizations.Visualize(request))) == expected


def test_the_error_of_a_too_large_request_gives_its_size_and_the_limit(stubs):
    request = job_pb2.SubmitJobRequest(spec=with_image(encoded=bytes(1 << 26)))
    code, message, details = refusal(lambda: stubs.jobs.SubmitJob(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == f"request: is {request.ByteSize()} bytes; allowed: {1 << 26}"
    assert details["BadRequest"].field_violations[0].field == "request"


def test_the_error_of_a_too_large_result_gives_its_size_and_the_limit(stubs):
    spec = REFUSED["spec.visualizations"][-1]
    _, message, _ = refusal(lambda: stubs.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=spec)))
    assert str(64 * 2 * 224 * 224 * 64 * 4) in message
    assert str(1 << 30) in message


def test_the_error_of_an_unknown_model_lists_the_served_ones(stubs):
    for call in (
        lambda: stubs.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=changed(model="vgg99"))),
        lambda: stubs.models.GetModel(model_pb2.GetModelRequest(name="vgg99")),
    ):
        code, message, details = refusal(call)
        assert code is grpc.StatusCode.NOT_FOUND
        assert details["ErrorInfo"].reason == "MODEL_UNKNOWN"
        assert "served are: null" in message


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda s: s.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=1001)), "page_size"),
        (lambda s: s.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=-1)), "page_size"),
        (lambda s: s.jobs.ListJobs(job_pb2.ListJobsRequest(page_token="x")), "page_token"),
        (lambda s: s.jobs.ListJobs(job_pb2.ListJobsRequest(state=77)), "state"),
        (lambda s: s.models.GetModel(model_pb2.GetModelRequest()), "name"),
        (lambda s: s.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=valid(), request_id="no uuid")), "request_id"),
    ],
)
def test_invalid_fields_of_other_requests_are_named(stubs, call, field):
    code, _, details = refusal(lambda: call(stubs))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details["BadRequest"].field_violations[0].field == field


def test_a_request_id_cannot_be_reused_for_another_request(stubs):
    request_id = str(uuid.uuid4())
    first = stubs.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=valid(), request_id=request_id)).job
    assert stubs.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=valid(), request_id=request_id)).job.id == first.id
    other = job_pb2.SubmitJobRequest(spec=changed(predictions=3), request_id=request_id)
    code, _, details = refusal(lambda: stubs.jobs.SubmitJob(other))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details["ErrorInfo"].reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("method", ["GetJob", "WatchJob", "CancelJob", "DeleteJob", "ReadJobResult"])
def test_an_unknown_job_is_not_found_and_a_malformed_id_is_invalid(stubs, method):
    def call(job_id):
        response = getattr(stubs.jobs, method)(getattr(job_pb2, f"{method}Request")(id=job_id))
        if method in {"WatchJob", "ReadJobResult"}:
            list(response)

    code, _, details = refusal(lambda: call("0" * 32))
    assert code is grpc.StatusCode.NOT_FOUND
    assert details["ErrorInfo"].reason == "JOB_UNKNOWN"
    for text in ("nope", "", "A" * 32):
        code, _, details = refusal(lambda text=text: call(text))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details["BadRequest"].field_violations[0].field == "id"


def test_a_truncated_image_fails_only_its_own_job(client):
    file = io.BytesIO()
    with Image.open(io.BytesIO(PHOTO)) as image:
        image.convert("RGB").save(file, "JPEG")
    broken = file.getvalue()[: len(file.getvalue()) // 2]
    with pytest.raises(InvalidArgument, match="truncated") as refused:
        client.saliency([PHOTO, broken])
    assert refused.value.reason == "IMAGE_UNREADABLE"
    assert refused.value.field == "spec.images[1]"
    assert refused.value.job_id
    assert client.saliency(PHOTO)["saliency"].shape == (1, 224, 224)


def test_missing_workers_and_a_full_queue_are_refused_with_a_retry_delay(tmp_path, valkey):
    with running(tmp_path, valkey, max_jobs=2) as service:
        _, target = service.server()
        with Client(target, timeout=3) as client, pytest.raises(Unavailable, match="convlens worker") as refused:
            client.saliency(PIXELS)
        assert (refused.value.reason, refused.value.retry_after) == ("NO_WORKERS", 1.0)
        worker = service.worker("null=null,device_ms=3000+0", flags=("--max-batch-size", "1"))
        with Client(target, timeout=30) as client:
            until(client.models)
            jobs = [client.submit(PIXELS, [Saliency()]) for _ in range(2)]
            with Client(target, timeout=2) as impatient, pytest.raises(Overloaded) as refused:
                impatient.visualize(PIXELS, [GradCAM()])
            assert refused.value.reason == "QUEUE_FULL"
            assert refused.value.retry_after > 0
            assert client.grad_cam(PIXELS)["grad_cam"].shape == (1, 14, 14)  # retried by the SDK
            assert all(job.wait().state == job_pb2.JOB_STATE_SUCCEEDED for job in jobs)
        worker.terminate()
