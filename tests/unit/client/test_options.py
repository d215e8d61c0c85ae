"""Options become wire messages; invalid values are refused with what is allowed."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from convlens.client import (
    Activations,
    AsyncClient,
    Blur,
    Client,
    GradCAM,
    InvalidArgument,
    Occlusion,
    Output,
    Saliency,
)
from convlens.client.images import pack
from convlens.client.job_status import state_number
from convlens.client.options import SALIENCY_METHODS
from convlens.client.request import PRIORITIES, new_request, new_spec
from convlens.v1 import job_pb2, spec_pb2, visualization_pb2

EVERY = (Saliency(), GradCAM(), Activations("c"), Occlusion())
OPTIONS = {"model": "", "scored_layer": "", "predictions": None, "priority": "normal", "fresh": False}
PHOTO = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (Saliency(), "saliency { method: SALIENCY_METHOD_VANILLA }"),
        (Saliency("guided"), "saliency { method: SALIENCY_METHOD_GUIDED }"),
        (Saliency(signed=True), "saliency { method: SALIENCY_METHOD_VANILLA reduction: CHANNEL_REDUCTION_NONE }"),
        (GradCAM(), "grad_cam { size: MAP_SIZE_LAYER method: CAM_METHOD_GRAD_CAM }"),
        (GradCAM("c3", upsampled=True), 'grad_cam { layer: "c3" size: MAP_SIZE_INPUT method: CAM_METHOD_GRAD_CAM }'),
        (Activations("c1"), 'activations { layers: "c1" reduction: CHANNEL_REDUCTION_NONE }'),
        (
            Activations(["c1", "c2"], [4, 0]),
            'activations { layers: "c1" layers: "c2" channels: 4 channels: 0 reduction: CHANNEL_REDUCTION_NONE }',
        ),
        (
            Saliency("smooth_grad", reduction="sum", samples=9, noise=0.5),
            "saliency { method: SALIENCY_METHOD_SMOOTH_GRAD reduction: CHANNEL_REDUCTION_SUM samples: 9 noise: 0.5 }",
        ),
        (
            Saliency("xrai", steps=3, baselines=[(255, 0, 0), Blur(4)]),
            "saliency { method: SALIENCY_METHOD_XRAI steps: 3 baselines { color { red: 255 } } baselines { blur: 4 } }",
        ),
        (GradCAM(signed=True), "grad_cam { size: MAP_SIZE_LAYER method: CAM_METHOD_GRAD_CAM signed: true }"),
        (Activations("c1", reduction="norm"), 'activations { layers: "c1" reduction: CHANNEL_REDUCTION_NORM }'),
        (Occlusion(), "occlusion { }"),
        (Occlusion(8, 4, "black"), "occlusion { patch: 8 stride: 4 color { } }"),
        (
            Activations(("c1",), range(2)),
            'activations { layers: "c1" channels: 0 channels: 1 reduction: CHANNEL_REDUCTION_NONE }',
        ),
    ],
)
def test_an_option_becomes_its_message(option, text):
    message = option.message()
    assert message.output == spec_pb2.Output(normalization=spec_pb2.NORMALIZATION_NONE, datatype="DATA_TYPE_FP32")
    message.ClearField("output")
    assert " ".join(str(message).split()) == text


def test_there_is_an_option_for_every_method_and_a_name_for_every_saliency():
    kinds = {type(option).__name__: option.message().WhichOneof("method") for option in EVERY}
    assert set(kinds.values()) == {field.name for field in spec_pb2.Visualization.DESCRIPTOR.oneofs[0].fields}
    assert set(SALIENCY_METHODS.values()) == set(spec_pb2.SaliencyMethod.values()) - {0}
    assert set(PRIORITIES.values()) == set(spec_pb2.Priority.values()) - {0}


@pytest.mark.parametrize(
    ("option", "field"),
    [
        (Saliency("nope"), "method"),
        (Saliency(reduction="nope"), "reduction"),
        (Saliency("smooth_grad", samples=0), "samples"),
        (Saliency("integrated_gradients", steps=-1), "steps"),
        (Saliency("integrated_gradients", baselines=["nope"]), "baselines"),
        (Saliency("integrated_gradients", baselines=[(1, 2)]), "baselines"),
        (GradCAM(method="nope"), "method"),
        (Occlusion(patch=0), "patch"),
        (Occlusion(color="nope"), "color"),
        (Saliency(output=Output(dtype="float64")), "dtype"),
        (Saliency(output=Output(normalization="nope")), "normalization"),
    ],
)
def test_an_invalid_value_is_refused_before_it_is_sent(option, field):
    with pytest.raises(InvalidArgument, match="allowed") as caught:
        option.message()
    assert caught.value.field == field


def test_an_output_becomes_its_message():
    message = GradCAM(output=Output((20, 30), "min_max", "uint8")).message().output
    text = "height: 20 width: 30 normalization: NORMALIZATION_MIN_MAX datatype: DATA_TYPE_UINT8"
    assert " ".join(str(message).split()) == text


def test_options_are_values():
    assert {Activations("c1"), Activations(["c1"])} == {Activations(("c1",), ())}
    with pytest.raises(AttributeError):
        Saliency().method = "guided"


@pytest.mark.parametrize(
    ("call", "message", "field"),
    [
        (lambda: Saliency("smooth").message(), "no method 'smooth'; allowed: vanilla, guided", "method"),
        (lambda: GradCAM(method="eigen").message(), "no method 'eigen'; allowed: grad_cam,", "method"),
        (lambda: spec(priority="urgent"), "no priority 'urgent'; allowed: high, normal, low", "priority"),
        (lambda: state_number("done"), "no state 'done'; allowed: queued, running, succeeded", "state"),
    ],
)
def test_an_unknown_name_is_refused_with_what_is_allowed(call, message, field):
    with pytest.raises(InvalidArgument, match=message) as caught:
        call()
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)


def spec(**changes):
    rest = {name: changes.pop(name, None) for name in ("target", "request_id", "time_limit")}
    request = new_request(new_spec([GradCAM()], **(OPTIONS | changes)), pack(PHOTO), **rest)
    return visualization_pb2.VisualizeRequest.FromString(request.serialized).spec


def test_a_spec_has_only_the_fields_that_were_passed():
    plain = spec()
    assert {field.name for field, _ in plain.ListFields()} == {"images", "visualizations", "priority"}
    full = spec(model="net", target=4, scored_layer="c1", predictions=0, priority="low", fresh=True, time_limit=1.5)
    assert (full.model, full.scored_layer, full.targets[0].index) == ("net", "c1", 4)
    assert full.HasField("predictions")
    assert full.fresh
    assert full.priority == spec_pb2.PRIORITY_LOW
    assert full.timeout.ToMilliseconds() == 1500


def test_every_state_has_its_name():
    for name, number in job_pb2.JobState.items():
        assert state_number(name.removeprefix("JOB_STATE_").lower() if number else None) == number


CALLS = {
    "visualize": lambda kind, visualizations, **options: kind("localhost:1").visualize(
        PHOTO, visualizations, **options
    ),
    "submit": lambda kind, visualizations, **options: kind("localhost:1").submit(PHOTO, visualizations, **options),
    "map": lambda kind, visualizations, **options: kind("localhost:1").map([PHOTO], visualizations, **options),
}


async def refusal(kind, call, visualizations, **options):
    """Return the error that the call itself raises, before anything is iterated."""
    with pytest.raises(InvalidArgument) as caught:
        await CALLS[call](kind, visualizations, **options)
    return caught.value


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("visualizations", "message"),
    [
        (GradCAM(), "visualizations is GradCAM("),
        (GradCAM, "visualizations is the class GradCAM"),
        ("grad_cam", "visualizations is 'grad_cam'"),
        (None, "visualizations is None"),
        ({"a": GradCAM()}, "visualizations is {"),
        ([Saliency(), GradCAM], r"visualizations[1] is the class GradCAM"),
        (["grad_cam"], "visualizations[0] is 'grad_cam'"),
        ([[GradCAM()]], "visualizations[0] is [GradCAM("),
    ],
    ids=repr,
)
async def test_anything_but_a_list_of_visualizations_is_refused_with_an_example(kind, call, visualizations, message):
    error = await refusal(kind, call, visualizations)
    assert error.message.startswith(message)
    assert "such as [GradCAM()]" in error.message
    assert error.field == "visualizations"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 5),
        ("scored_layer", ["c1"]),
        ("predictions", "5"),
        ("predictions", 1.5),
        ("predictions", 1 << 40),
        ("fresh", "yes"),
        ("priority", ["low"]),
    ],
)
async def test_a_value_of_another_type_is_refused_by_its_field(kind, call, field, value):
    error = await refusal(kind, call, [GradCAM()], **{field: value})
    assert error.field == field
    assert "allowed: " in error.message


@pytest.mark.parametrize(
    "option",
    [GradCAM(layer=5), Saliency(samples="9"), Saliency(method=[]), Activations("c", [0.5]), Occlusion(color=5)],
)
async def test_an_option_of_another_type_is_refused_by_its_visualization(option):
    error = await refusal(Client, "visualize", [Saliency(), option])
    assert error.field == "visualizations"
    assert error.message.startswith("visualizations[1] is ")


@pytest.mark.parametrize("in_flight", [0, 1.5, "4", None, True])
async def test_in_flight_is_a_whole_number(in_flight):
    error = await refusal(Client, "map", [GradCAM()], in_flight=in_flight)
    assert error.field == "in_flight"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("tls", ["ca.pem", 1, {"ca": "ca.pem"}])
def test_tls_of_another_type_is_refused(kind, tls):
    with pytest.raises(InvalidArgument, match="allowed: TLS") as caught:
        kind("localhost:1", tls=tls)
    assert caught.value.field == "tls"


async def test_a_request_id_of_another_type_is_refused():
    assert (await refusal(Client, "visualize", [GradCAM()], request_id=uuid.uuid4())).field == "request_id"


def test_visualizations_may_come_from_an_iterator():
    spec = new_spec(iter([GradCAM(), Saliency()]), **OPTIONS)
    for _ in range(2):
        assert len(new_request(spec, pack(PHOTO), None).spec.visualizations) == 2
