"""Whatever a caller sends: never INTERNAL or UNKNOWN, no traceback, and an invalid field is named."""

from __future__ import annotations

import grpc
import hostile
import numpy as np
import pytest
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import running

from convlens.client import Client, ConvlensError, GradCAM
from convlens.v1 import job_pb2, model_pb2, spec_pb2, tensor_pb2, tensors, visualization_pb2

METHODS = {
    method.name: method
    for file in (visualization_pb2, job_pb2, model_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
UNEXPLAINED = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED}
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
SECONDS = 2.0
PIXELS = np.full((8, 8, 3), 7, np.uint8)
quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


def spec() -> spec_pb2.JobSpec:
    """A valid job with every kind of image, visualization and option."""
    v = spec_pb2.Visualization
    output = spec_pb2.Output(height=4, width=4, normalization=1, datatype=tensor_pb2.DATA_TYPE_UINT8)
    black = spec_pb2.Baseline(color=spec_pb2.Color())
    return spec_pb2.JobSpec(
        model="null",
        images=[
            spec_pb2.Image(encoded=hostile.files()["PNG"]),
            spec_pb2.Image(pixels=tensors.encode(PIXELS.astype(np.float32))),
            spec_pb2.Image(pixels=tensors.encode(PIXELS)),
        ],
        visualizations=[
            v(grad_cam=spec_pb2.GradCam(layer="block4_pool", method=3, size=1)),
            v(saliency=spec_pb2.Saliency(method=6, samples=2, noise=0.1)),
            v(activations=spec_pb2.Activations(layers=["fc2"], channels=[3, 1])),
            v(occlusion=spec_pb2.Occlusion(patch=112, stride=112, color=spec_pb2.Color(red=1))),
            v(saliency=spec_pb2.Saliency(method=9, reduction=3, steps=2, baselines=[black]), output=output),
        ],
        targets=[spec_pb2.Target(indices=spec_pb2.UnitIndices(values=[3, 5]))],
        scored_layer="predictions",
        predictions=2,
        priority=spec_pb2.PRIORITY_HIGH,
        timeout={"seconds": 5},
    )


def spec_with(**fields) -> spec_pb2.JobSpec:
    """A copy of that job with other fields."""
    other = spec()
    for name in fields:
        other.ClearField(name)
    other.MergeFrom(spec_pb2.JobSpec(**fields))
    return other


VISUALIZATIONS = [
    spec_pb2.Visualization(saliency=spec_pb2.Saliency(method=9, steps=1, baselines=[spec_pb2.Baseline(blur=2)])),
    spec_pb2.Visualization(activations=spec_pb2.Activations(layers=["block5_pool"])),
    spec_pb2.Visualization(occlusion=spec_pb2.Occlusion(patch=224, stride=224, color=spec_pb2.Color(red=1))),
    spec_pb2.Visualization(grad_cam=spec_pb2.GradCam(), output=spec_pb2.Output(height=3, width=3)),
]


@pytest.fixture(scope="module")
def target(tmp_path_factory, valkey):
    """A server with low limits, and a null worker."""
    folder = tmp_path_factory.mktemp("hostile")
    limits = {"max_images": 8, "max_image_pixels": 1_000_000, "max_result_bytes": 4 << 20, "lease": 5}
    with running(folder, valkey, **limits) as service:
        service.worker("null=null")
        yield service.server()[1]


@pytest.fixture(scope="module")
def call(target):
    """Call a method with a request, and return the status."""
    with grpc.insecure_channel(target, [("grpc.max_receive_message_length", -1)]) as channel:

        def call_method(name: str, request) -> status_pb2.Status:
            method = METHODS[name]
            make = channel.unary_stream if method.server_streaming else channel.unary_unary
            stub = make(
                f"/{method.containing_service.full_name}/{name}",
                request_serializer=lambda data: data if isinstance(data, bytes) else data.SerializeToString(),
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            try:
                response = stub(request, timeout=SECONDS)
                if method.server_streaming:
                    list(response)
            except grpc.RpcError as error:
                return rpc_status.from_call(error) or status_pb2.Status(
                    code=error.code().value[0], message=error.details()
                )
            return status_pb2.Status()

        yield call_method


@pytest.fixture(scope="module")
def job_id(target):
    """The id of a job that has a result."""
    with Client(target, timeout=30) as client:
        return client.visualize(PIXELS, [GradCAM()]).job_id


def valid_request(name: str, job_id: str):
    """A valid request of a method."""
    request = GetMessageClass(METHODS[name].input_type)()
    for field, value in {"id": job_id, "name": "null", "page_size": 2, "sequence": 1}.items():
        if field in METHODS[name].input_type.fields_by_name:
            setattr(request, field, value)
    if "spec" in METHODS[name].input_type.fields_by_name:
        request.spec.CopyFrom(spec())
    if name == "VisualizeUnary":  # its result must be small
        del request.spec.images[1:]
    return request


def assert_helpful(status: status_pb2.Status) -> None:
    """Assert that a status is no internal error, has no traceback, and names an invalid field."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    assert code not in UNEXPLAINED, f"{code}: {status.message}"
    assert "Traceback" not in status.message
    assert 'File "' not in status.message
    assert len(status.message) < 2000
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        bad_request = error_details_pb2.BadRequest()
        assert any(detail.Unpack(bad_request) for detail in status.details), status.message
        assert bad_request.field_violations[0].field
        assert bad_request.field_violations[0].description


@pytest.mark.parametrize("name", METHODS)
def test_a_valid_request_succeeds(call, job_id, name):
    if name != "DeleteJob":
        assert not call(name, valid_request(name, job_id)).code


@pytest.mark.parametrize("name", METHODS)
def test_each_hostile_value_of_each_field_has_a_helpful_status(call, job_id, name):
    for path, request in hostile.spoilt(valid_request(name, job_id)):
        if name.startswith("Visualize") and request.HasField("spec"):
            continue  # the fields of a spec are those of SubmitJob, which does not wait for the result
        try:
            assert_helpful(call(name, request))
        except AssertionError as error:
            raise AssertionError(f"{name}, {path}: {str(request)[:2000]}") from error


@pytest.mark.parametrize("visualization", VISUALIZATIONS, ids=lambda visualization: visualization.WhichOneof("method"))
def test_each_hostile_value_of_each_visualization_has_a_helpful_status(call, job_id, visualization):
    request = valid_request("SubmitJob", job_id)
    del request.spec.visualizations[:]
    request.spec.visualizations.append(visualization)
    del request.spec.images[:2]
    for path, hostile_copy in hostile.spoilt(visualization):
        request.spec.visualizations[0].CopyFrom(hostile_copy)
        try:
            assert_helpful(call("SubmitJob", request))
        except AssertionError as error:
            raise AssertionError(f"{path}: {str(hostile_copy)[:2000]}") from error


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
@quick
def test_any_message_has_a_helpful_status(call, name, data):
    assert_helpful(call(name, data.draw(hostile.messages(METHODS[name].input_type))))


def test_every_admitted_job_ended_without_an_internal_error(target):
    with Client(target, timeout=60) as client:
        for job in client.jobs():
            ended = job if job.state >= job_pb2.JOB_STATE_SUCCEEDED else client.job(job.id).wait()
            assert ended.error is None or ended.error.reason != "INTERNAL", (ended.error, job.id)


@pytest.mark.parametrize("name", METHODS)
def test_bytes_that_are_no_message_are_invalid(call, name):
    assert call(name, b"\xff" * 40).code == INVALID


LONG = {
    "name": model_pb2.GetModelRequest(name="a" * 9000),
    "page_token": job_pb2.ListJobsRequest(page_token="9" * 9000),
    "spec.model": job_pb2.SubmitJobRequest(spec=spec_with(model="a" * 9000)),
    "spec.scored_layer": job_pb2.SubmitJobRequest(spec=spec_with(scored_layer="a" * 9000)),
    "spec.visualizations[0].grad_cam.layer": job_pb2.SubmitJobRequest(
        spec=spec_with(visualizations=[spec_pb2.Visualization(grad_cam=spec_pb2.GradCam(layer="a" * 9000))])
    ),
    "spec.visualizations[0].activations.layers[0]": job_pb2.SubmitJobRequest(
        spec=spec_with(visualizations=[spec_pb2.Visualization(activations=spec_pb2.Activations(layers=["a" * 9000]))])
    ),
    "spec.images[0].pixels.shape": job_pb2.SubmitJobRequest(
        spec=spec_with(images=[spec_pb2.Image(pixels=tensor_pb2.Tensor(datatype=3, shape=[1] * 4000))])
    ),
}


@pytest.mark.parametrize("field", LONG)
def test_a_long_value_is_refused_by_its_field(call, field):
    request = LONG[field]
    status = call(type(request).__name__.removesuffix("Request"), request)
    assert_helpful(status)
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert bad_request.field_violations[0].field == field


def test_the_sdk_has_a_typed_error_for_every_status(target):
    with Client(target, timeout=20) as client:
        for _ in range(50):  # gRPC rejects some trailers of 8 to 16 KiB at random
            with pytest.raises(ConvlensError):
                client.model("a" * 4500)
