"""JobSpec + card → plan: names, shapes and sizes of the arrays; a wrong field is refused by its name."""

from __future__ import annotations

import math

import pytest
from specs import CARD, LAYERS, activations, color, grad_cam, occlusion, plan_of, saliency, target, with_output

from convlens.client.options import CAM_METHODS, SALIENCY_METHODS
from convlens.v1 import model_pb2, spec_pb2, tensor_pb2
from convlens.v1.request.methods import METHODS, LayerOutput, SaliencyMap
from convlens.v1.request.plan import resolve
from convlens.v1.request.targets import ALL_UNITS, PREDICTED
from convlens.v1.status_error import SpecError
from convlens.worker.engine import plan as engine_plan

SMOOTH, PATH, XRAI = (SALIENCY_METHODS[name] for name in ("smooth_grad", "integrated_gradients", "xrai"))
GUIDED, SIGNED, UPSAMPLED = (
    spec_pb2.SALIENCY_METHOD_GUIDED,
    spec_pb2.CHANNEL_REDUCTION_NONE,
    spec_pb2.MAP_SIZE_INPUT,
)
ARRAYS = [
    (saliency(), "saliency", (32, 48), True),
    (saliency(1, 1), "saliency", (32, 48), True),
    (saliency(GUIDED), "saliency/guided", (32, 48), True),
    (saliency(reduction=SIGNED), "saliency/signed", (32, 48, 3), True),
    (saliency(GUIDED, SIGNED), "saliency/guided/signed", (32, 48, 3), True),
    *(
        (saliency(method), f"saliency/{name}", (32, 48), True)
        for name, method in SALIENCY_METHODS.items()
        if method > 1
    ),
    *((grad_cam(method=method), name, (16, 24), True) for name, method in CAM_METHODS.items()),
    (grad_cam("c1", UPSAMPLED, spec_pb2.CAM_METHOD_LAYER_CAM), "layer_cam/c1/upsampled", (32, 48), True),
    (grad_cam(), "grad_cam", (16, 24), True),
    (grad_cam("c3", 1), "grad_cam", (16, 24), True),
    (grad_cam(size=UPSAMPLED), "grad_cam/upsampled", (32, 48), True),
    (grad_cam("c1"), "grad_cam/c1", (32, 48), True),
    (grad_cam("p1"), "grad_cam/p1", (16, 24), True),
    (grad_cam("p1", UPSAMPLED), "grad_cam/p1/upsampled", (32, 48), True),
    (activations("c1"), "activations/c1", (32, 48, 6), False),
    (activations("c1", channels=[5, 0]), "activations/c1", (32, 48, 2), False),
    (activations("gap", channels=[7]), "activations/gap", (1,), False),
    (activations("fc"), "activations/fc", (10,), False),
    (activations("c1", reduction=spec_pb2.CHANNEL_REDUCTION_MEAN), "activations/c1/mean", (32, 48), False),
    (saliency(reduction=spec_pb2.CHANNEL_REDUCTION_SUM), "saliency/sum", (32, 48), True),
    (grad_cam("c1", signed=True), "grad_cam/c1/signed", (32, 48), True),
    (occlusion(), "occlusion", (32, 48), True),
]


@pytest.mark.parametrize(("visualization", "name", "shape", "targeted"), ARRAYS)
@pytest.mark.parametrize(
    ("targets", "axis"), [([], ()), ([target(index=3)], ()), ([target(top_k=4)], (4,)), ([target(indices=[2])], (1,))]
)
def test_a_visualization_yields_an_array_of_this_name_and_shape(visualization, name, shape, targeted, targets, axis):
    plan = plan_of(visualization, targets=targets)
    (tensor,) = plan.tensors
    expected = (2, *(axis if targeted else ()), *shape)
    assert (tensor.name, tensor.shape, tensor.targeted) == (name, expected, targeted)
    assert plan.result_bytes == 4 * math.prod(expected)
    assert plan.target_axis == bool(axis)


def test_every_method_yields_an_array():
    assert {visualization.WhichOneof("method") for visualization, *_ in ARRAYS} == set(METHODS)
    assert set(METHODS) == {field.name for field in spec_pb2.Visualization.DESCRIPTOR.oneofs[0].fields}


def test_arrays_are_in_the_order_of_the_request_and_add_up():
    plan = plan_of(grad_cam(), activations("c2", "p1", channels=[1]), saliency(), images=3)
    assert [tensor.name for tensor in plan.tensors] == ["grad_cam", "activations/c2", "activations/p1", "saliency"]
    assert plan.result_bytes == 3 * 4 * (16 * 24 * 3 + 32 * 48)
    assert plan.tensors[1].method == LayerOutput("c2", (1,))
    assert plan.tensors[1].channels == (1,)
    assert plan.tensors[3].method == SaliencyMap("vanilla")
    assert plan.tensors[3].channels == ()


@pytest.mark.parametrize(
    ("targets", "codes", "axis"),
    [
        ([], [(PREDICTED,)] * 2, False),
        ([target()], [(PREDICTED,)] * 2, False),
        ([target(predicted=True)], [(PREDICTED,)] * 2, False),
        ([target(index=9)], [(9,)] * 2, False),
        ([target(index=0), target(all_units=True)], [(0,), (ALL_UNITS,)], False),
        ([target(indices=[4, 1])], [(4, 1)] * 2, True),
        ([target(indices=[4, 1]), target(indices=[0, 9])], [(4, 1), (0, 9)], True),
        ([target(top_k=3)], [(-2, -3, -4)] * 2, True),
        ([target(top_k=2), target(indices=[5, 6])], [(-2, -3), (5, 6)], True),
    ],
)
def test_targets_are_resolved_for_each_image(targets, codes, axis):
    plan = plan_of(saliency(), targets=targets)
    assert plan.targets == tuple(codes)
    assert plan.target_axis is axis


@pytest.mark.parametrize(
    ("visualizations", "fields", "predictions"),
    [
        ([saliency()], {}, 5),
        ([activations("c1"), grad_cam()], {}, 5),
        ([activations("fc")], {}, 0),
        ([saliency()], {"scored_layer": "c2"}, 0),
        ([saliency()], {"scored_layer": "fc"}, 5),
        ([saliency()], {"predictions": 0}, 0),
        ([activations("c1")], {"predictions": 3}, 3),
        ([saliency()], {"predictions": 1000, "scored_layer": "c2"}, 1000),
    ],
)
def test_predictions_are_as_many_as_requested_else_five_where_logits_are_reached(visualizations, fields, predictions):
    assert plan_of(*visualizations, **fields).predictions == predictions


def test_an_inner_scored_layer_has_its_channels_as_units():
    plan = plan_of(saliency(), grad_cam("p1"), targets=[target(index=7)], scored_layer="c2")
    assert plan.scored_layer == "c2"
    assert plan_of(saliency(), scored_layer="fc").scored_layer == ""
    with pytest.raises(SpecError, match="is 8; allowed: 0…7"):
        plan_of(saliency(), targets=[target(index=8)], scored_layer="c2")


WRONG_FIELDS = [
    ({"scored_layer": "conv9"}, "spec.scored_layer", "no layer 'conv9' in model 'net'; allowed: c1, p1, c2, c3, "),
    ({"targets": [target()] * 3}, "spec.targets", "has 3 for 2 images; allowed: none, one, or one an image"),
    ({"targets": [target(index=10)]}, "spec.targets[0].index", "is 10; allowed: 0…9"),
    ({"targets": [target(index=1), target(index=-1)]}, "spec.targets[1].index", "is -1; allowed: 0…9"),
    ({"targets": [target(indices=[])]}, "spec.targets[0].indices", "is empty; name at least one unit"),
    ({"targets": [target(indices=[2, 2])]}, "spec.targets[0].indices", "names a unit twice"),
    ({"targets": [target(indices=[2, 10])]}, "spec.targets[0].indices.values[1]", "is 10; allowed: 0…9"),
    ({"targets": [target(top_k=0)]}, "spec.targets[0].top_k", "is 0; allowed: 1…10"),
    ({"targets": [target(top_k=11)]}, "spec.targets[0].top_k", "is 11; allowed: 1…10"),
    ({"targets": [target(top_k=2), target(top_k=3)]}, "spec.targets[1]", "not as many units as the first image's"),
    ({"targets": [target(index=2), target(indices=[3])]}, "spec.targets[1]", "not as many units as the first image's"),
    ({"predictions": -1}, "spec.predictions", "is -1; allowed: 0…1000"),
    ({"predictions": 1001}, "spec.predictions", "is 1001; allowed: 0…1000"),
    (spec_pb2.Visualization(), "spec.visualizations[1]", "allowed: saliency, grad_cam, activations"),
    (saliency(1, 1), "spec.visualizations[1]", "'saliency' again"),
    (saliency(99), "spec.visualizations[1].saliency.method", "SALIENCY_METHOD_VANILLA, SALIENCY_METHOD_GUIDED"),
    (saliency(1, 99), "spec.visualizations[1].saliency.reduction", "CHANNEL_REDUCTION_ABS_MAX, CHANNEL_REDUCTION_NONE"),
    (grad_cam(size=9), "spec.visualizations[1].grad_cam.size", "is 9; allowed: MAP_SIZE_LAYER, MAP_SIZE_INPUT"),
    (grad_cam("conv9"), "spec.visualizations[1].grad_cam.layer", "no layer 'conv9' in model 'net'; allowed: c1, p1"),
    (grad_cam("gap"), "spec.visualizations[1].grad_cam.layer", "allowed: c1, p1, c2, c3"),
    (activations(), "spec.visualizations[1].activations.layers", "is empty; allowed: c1, p1, c2, c3, gap"),
    (activations("c1", "x"), "spec.visualizations[1].activations.layers[1]", "no layer 'x' in model 'net'; allowed: "),
    (activations("c1", "c1"), "spec.visualizations[1]", "'activations/c1' again"),
    (activations("c1", channels=[0, 0]), "spec.visualizations[1].activations.channels", "names a channel twice"),
    (activations("c1", channels=[0, 6]), "spec.visualizations[1].activations.channels[1]", "'c1' has channels 0…5"),
    (activations("c2", channels=[-1]), "spec.visualizations[1].activations.channels[0]", "channels 0…7"),
    (saliency(SMOOTH, samples=1001), "spec.visualizations[1].saliency.samples", "is 1001; allowed: 1…1000"),
    (saliency(SMOOTH, samples=-1), "spec.visualizations[1].saliency.samples", "is -1; allowed: 1…1000"),
    (saliency(SMOOTH, noise=0), "spec.visualizations[1].saliency.noise", "is 0; allowed: above 0, up to 1"),
    (saliency(samples=3), "spec.visualizations[1].saliency.samples", "vanilla takes no noisy copies"),
    (saliency(steps=3), "spec.visualizations[1].saliency.steps", "vanilla follows no path"),
    (saliency(PATH, steps=1001), "spec.visualizations[1].saliency.steps", "is 1001; allowed: 1…1000"),
    (saliency(PATH, baselines=[color(256)]), "spec.visualizations[1].saliency.baselines[0].color", "each in 0…255"),
    (saliency(PATH, baselines=[{}]), "spec.visualizations[1].saliency.baselines[0]", "is empty; allowed: color, blur"),
    (saliency(PATH, baselines=[{"blur": 99}]), "spec.visualizations[1].saliency.baselines[0].blur", "0.5…64 pixels"),
    (saliency(PATH, baselines=[color(1)] * 2), "spec.visualizations[1].saliency.baselines", "names a baseline twice"),
    (saliency(PATH, baselines=[color(i) for i in range(9)]), "spec.visualizations[1].saliency.baselines", "1…8"),
    (saliency(XRAI, 3), "spec.visualizations[1].saliency.reduction", "no channels left"),
    (grad_cam(method=5, signed=True), "spec.visualizations[1].grad_cam.signed", "positive weights"),
    (occlusion(patch=33), "spec.visualizations[1].occlusion.patch", "is 33; allowed: 1…32"),
    (occlusion(patch=8, stride=9), "spec.visualizations[1].occlusion.stride", "is 9; allowed: 1…8"),
    (occlusion(color={"red": -1}), "spec.visualizations[1].occlusion.color", "each in 0…255"),
    (with_output(grad_cam(), height=9), "spec.visualizations[1].output.width", "is 0; allowed: 1…4096"),
    (with_output(grad_cam(), height=4097, width=3), "spec.visualizations[1].output.height", "is 4097; allowed: 1…4096"),
    (with_output(grad_cam(), datatype=4), "spec.visualizations[1].output.datatype", "allowed: DATA_TYPE_FP32"),
    (with_output(grad_cam(), normalization=9), "spec.visualizations[1].output.normalization", "NORMALIZATION_MIN_MAX"),
    (with_output(activations("fc"), height=3, width=3), "spec.visualizations[1].output.height", "no extent in space"),
]  # fmt: skip


def test_a_square_too_small_for_a_large_image_is_refused_with_both_numbers():
    card = model_pb2.Model(name="n", input_shape=(224, 224, 3), layers=CARD.layers, score_layer="fc")
    spec = spec_pb2.JobSpec(visualizations=[occlusion(patch=2, stride=1)], images=[spec_pb2.Image()])
    with pytest.raises(SpecError, match="49729 squares an image; allowed: 10000"):
        resolve(spec, card)


def test_a_method_that_the_workers_lack_is_refused_with_those_they_have():
    card = model_pb2.Model()
    card.CopyFrom(CARD)
    card.methods.remove("xrai")
    spec = spec_pb2.JobSpec(visualizations=[saliency(XRAI)], images=[spec_pb2.Image()])
    with pytest.raises(SpecError, match="is xrai, which the workers of 'net' lack; allowed: vanilla, guided") as caught:
        resolve(spec, card)
    assert "xrai," not in caught.value.message.partition("allowed")[2]


def test_the_output_format_decides_shape_and_bytes():
    one, other = plan_of(
        with_output(saliency(reduction=SIGNED), height=5, width=7, datatype=tensor_pb2.DATA_TYPE_FP16),
        with_output(activations("c1", channels=[1, 2]), height=3, width=3, datatype=tensor_pb2.DATA_TYPE_UINT8),
    ).tensors
    assert (one.shape, one.byte_size) == ((2, 5, 7, 3), 2 * 5 * 7 * 3 * 2)
    assert (other.shape, other.byte_size) == ((2, 3, 3, 2), 2 * 3 * 3 * 2)


@pytest.mark.parametrize(
    ("change", "field", "text"), WRONG_FIELDS, ids=[f"{i}-{field}" for i, (_, field, _) in enumerate(WRONG_FIELDS)]
)
def test_a_wrong_field_is_named_with_what_is_allowed(change, field, text):
    with pytest.raises(SpecError) as caught:
        plan_of(saliency(), **change) if isinstance(change, dict) else plan_of(saliency(), change)
    assert caught.value.field == field
    assert str(caught.value) == caught.value.message
    prefix, _, description = caught.value.message.partition(f"{field}: ")
    assert not prefix
    assert text in description


@pytest.mark.parametrize("layer", ["c2", "c3", "fc"])
def test_grad_cam_is_only_below_the_scored_layer(layer):
    with pytest.raises(SpecError, match=r"not below the scored layer 'c2'; allowed: c1, p1$"):
        plan_of(grad_cam(layer), scored_layer="c2")


def test_a_long_list_of_layers_is_cut_in_a_message():
    layers = [model_pb2.Layer(name=f"c{i}", kind="Conv2D", shape=(4, 4, 1)) for i in range(90)]
    card = model_pb2.Model(name="deep", input_shape=(4, 4, 3), layers=layers, score_layer="c89")
    with pytest.raises(SpecError, match=r"allowed: c0, .*, c39, …$"):
        resolve(spec_pb2.JobSpec(scored_layer="x", images=[spec_pb2.Image()]), card)


def test_working_bytes_are_the_arrays_and_a_copy_of_the_largest_map_that_is_resized():
    images = [spec_pb2.Image(), spec_pb2.Image()]
    whole, resized = activations("c1"), with_output(activations("c1", "c2"), height=1, width=1)
    c1, c2 = (4 * math.prod(LAYERS[name][1]) for name in ("c1", "c2"))
    working = [
        resolve(spec_pb2.JobSpec(images=images, visualizations=[visualization]), CARD).working_bytes
        for visualization in (whole, resized)
    ]
    assert working == [2 * c1, 2 * (c1 + c2) + max(c1, c2)]


def test_targets_have_the_codes_of_the_engine():
    assert (ALL_UNITS, PREDICTED) == (engine_plan.ALL_UNITS, engine_plan.PREDICTED)
