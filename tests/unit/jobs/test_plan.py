"""The plan of a job: names, shapes and sizes of what it asks for; what a model cannot do is refused by its field."""

from __future__ import annotations

import math

import pytest

from convlens.client.options import CAM_METHODS, SALIENCY_METHODS
from convlens.jobs.request.fields import SpecError
from convlens.jobs.request.methods import METHODS, LayerOutput, SaliencyMap
from convlens.jobs.request.plan import ALL_UNITS, PREDICTED, REMEMBERED, SMALL_SPEC, Plans, make_plan
from convlens.v1 import model_pb2, spec_pb2, tensor_pb2

LAYERS = {
    "c1": ("Conv2D", (32, 48, 6)),
    "p1": ("MaxPooling2D", (16, 24, 6)),
    "c2": ("Conv2D", (16, 24, 8)),
    "c3": ("Conv2D", (16, 24, 8)),
    "gap": ("GlobalAveragePooling2D", (8,)),
    "fc": ("Dense", (10,)),
}
CARD = model_pb2.Model(
    name="net",
    input_shape=(32, 48, 3),
    layers=[model_pb2.Layer(name=n, kind=kind, shape=shape) for n, (kind, shape) in LAYERS.items()],
    score_layer="fc",
    cam_layer="c3",
    methods=[*SALIENCY_METHODS, *CAM_METHODS],
)


def saliency(method=0, reduction=0, **options):
    return spec_pb2.Visualization(saliency=spec_pb2.Saliency(method=method, reduction=reduction, **options))


def grad_cam(layer="", size=0, method=0, signed=False):
    return spec_pb2.Visualization(grad_cam=spec_pb2.GradCam(layer=layer, size=size, method=method, signed=signed))


def activations(*layers, channels=(), reduction=0):
    options = spec_pb2.Activations(layers=layers, channels=channels, reduction=reduction)
    return spec_pb2.Visualization(activations=options)


def occlusion(**options):
    return spec_pb2.Visualization(occlusion=spec_pb2.Occlusion(**options))


def color(red):
    return {"color": {"red": red}}


def formed(visualization, **output):
    visualization.output.CopyFrom(spec_pb2.Output(**output))
    return visualization


def target(**kind):
    if "indices" in kind:
        kind["indices"] = spec_pb2.UnitIndices(values=kind["indices"])
    return spec_pb2.Target(**kind)


def make(*visualizations, images=2, targets=(), **fields):
    spec = spec_pb2.JobSpec(visualizations=visualizations, targets=targets, **fields)
    spec.images.extend(spec_pb2.Image() for _ in range(images))
    return make_plan(spec, CARD)


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


@pytest.mark.parametrize(("asked", "name", "shape", "targeted"), ARRAYS)
@pytest.mark.parametrize(
    ("targets", "axis"), [([], ()), ([target(index=3)], ()), ([target(top_k=4)], (4,)), ([target(indices=[2])], (1,))]
)
def test_an_array_has_the_name_and_the_shape_that_are_promised(asked, name, shape, targeted, targets, axis):
    plan = make(asked, targets=targets)
    (tensor,) = plan.tensors
    whole = (2, *(axis if targeted else ()), *shape)
    assert (tensor.name, tensor.shape, tensor.targeted) == (name, whole, targeted)
    assert plan.result_bytes == 4 * math.prod(whole)
    assert plan.target_axis == bool(axis)


def test_there_is_an_array_of_every_method():
    assert {asked.WhichOneof("method") for asked, *_ in ARRAYS} == set(METHODS)
    assert set(METHODS) == {field.name for field in spec_pb2.Visualization.DESCRIPTOR.oneofs[0].fields}


def test_arrays_stand_in_the_order_they_are_asked_for_and_add_up():
    plan = make(grad_cam(), activations("c2", "p1", channels=[1]), saliency(), images=3)
    assert [it.name for it in plan.tensors] == ["grad_cam", "activations/c2", "activations/p1", "saliency"]
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
    plan = make(saliency(), targets=targets)
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
def test_predictions_are_as_many_as_asked_for_or_as_come_for_free(visualizations, fields, predictions):
    assert make(*visualizations, **fields).predictions == predictions


def test_an_inner_scored_layer_has_its_channels_as_units_and_bounds_grad_cam():
    plan = make(saliency(), grad_cam("p1"), targets=[target(index=7)], scored_layer="c2")
    assert plan.scored_layer == "c2"
    assert make(saliency(), scored_layer="fc").scored_layer == ""
    with pytest.raises(SpecError, match="is 8; allowed: 0…7"):
        make(saliency(), targets=[target(index=8)], scored_layer="c2")


WRONG = [
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
    (formed(grad_cam(), height=9), "spec.visualizations[1].output.width", "is 0; allowed: 1…4096"),
    (formed(grad_cam(), height=4097, width=3), "spec.visualizations[1].output.height", "is 4097; allowed: 1…4096"),
    (formed(grad_cam(), datatype=4), "spec.visualizations[1].output.datatype", "allowed: DATA_TYPE_FP32"),
    (formed(grad_cam(), normalization=9), "spec.visualizations[1].output.normalization", "NORMALIZATION_MIN_MAX"),
    (formed(activations("fc"), height=3, width=3), "spec.visualizations[1].output.height", "no extent in space"),
]  # fmt: skip


def test_a_square_too_small_for_a_large_image_is_refused_with_both_numbers():
    card = model_pb2.Model(name="n", input_shape=(224, 224, 3), layers=CARD.layers, score_layer="fc")
    spec = spec_pb2.JobSpec(visualizations=[occlusion(patch=2, stride=1)], images=[spec_pb2.Image()])
    with pytest.raises(SpecError, match="49729 squares an image; allowed: 10000"):
        make_plan(spec, card)


def test_a_method_that_the_workers_lack_is_refused_with_those_they_have():
    card = model_pb2.Model()
    card.CopyFrom(CARD)
    card.methods.remove("xrai")
    spec = spec_pb2.JobSpec(visualizations=[saliency(XRAI)], images=[spec_pb2.Image()])
    with pytest.raises(SpecError, match="is xrai, which the workers of 'net' lack; allowed: vanilla, guided") as caught:
        make_plan(spec, card)
    assert "xrai," not in caught.value.description.partition("allowed")[2]


def test_the_form_decides_shape_and_bytes():
    one, other = make(
        formed(saliency(reduction=SIGNED), height=5, width=7, datatype=tensor_pb2.DATA_TYPE_FP16),
        formed(activations("c1", channels=[1, 2]), height=3, width=3, datatype=tensor_pb2.DATA_TYPE_UINT8),
    ).tensors
    assert (one.shape, one.byte_size) == ((2, 5, 7, 3), 2 * 5 * 7 * 3 * 2)
    assert (other.shape, other.byte_size) == ((2, 3, 3, 2), 2 * 3 * 3 * 2)


@pytest.mark.parametrize(("change", "field", "text"), WRONG, ids=[f"{i}-{it[1]}" for i, it in enumerate(WRONG)])
def test_what_cannot_be_granted_is_refused_by_its_field_and_with_what_is_allowed(change, field, text):
    with pytest.raises(SpecError) as caught:
        make(saliency(), **change) if isinstance(change, dict) else make(saliency(), change)
    assert caught.value.field == field
    assert text in caught.value.description
    assert str(caught.value) == f"{field}: {caught.value.description}"


@pytest.mark.parametrize("layer", ["c2", "c3", "fc"])
def test_grad_cam_is_only_below_the_scored_layer(layer):
    with pytest.raises(SpecError, match=r"not below the scored layer 'c2'; allowed: c1, p1$"):
        make(grad_cam(layer), scored_layer="c2")


def test_a_long_list_of_layers_is_cut_in_a_message():
    layers = [model_pb2.Layer(name=f"c{i}", kind="Conv2D", shape=(4, 4, 1)) for i in range(90)]
    card = model_pb2.Model(name="deep", input_shape=(4, 4, 3), layers=layers, score_layer="c89")
    with pytest.raises(SpecError, match=r"allowed: c0, .*, c39, …$"):
        make_plan(spec_pb2.JobSpec(scored_layer="x", images=[spec_pb2.Image()]), card)


def test_what_was_planned_is_remembered_for_its_card_alone():
    spec = spec_pb2.JobSpec(visualizations=[activations("c1")], images=[spec_pb2.Image()])
    other = model_pb2.Model()
    other.CopyFrom(CARD)
    other.layers[0].shape[-1] += 1
    plans = Plans()
    first = plans.planned(spec.SerializeToString(), CARD)
    assert first == make_plan(spec, CARD)
    assert plans.planned(spec.SerializeToString(), CARD) is first
    assert plans.planned(spec.SerializeToString(), other) == make_plan(spec, other) != first
    spec.images.add()
    assert plans.planned(spec.SerializeToString(), CARD) == make_plan(spec, CARD) != first


def test_few_plans_of_small_specs_are_remembered():
    plans = Plans()
    plan = make_plan(spec_pb2.JobSpec(visualizations=[activations("c1")], images=[spec_pb2.Image()]), CARD)
    plans.put(bytes(SMALL_SPEC + 1), CARD, plan)
    assert plans.get(bytes(SMALL_SPEC + 1), CARD) is None
    specs = [str(i).encode() for i in range(REMEMBERED + 1)]
    for spec in specs:
        plans.put(spec, CARD, plan)
    assert [plans.get(spec, CARD) for spec in (specs[0], specs[1], specs[-1])] == [None, plan, plan]


def test_working_bytes_are_the_arrays_and_a_copy_of_the_largest_map_that_is_resized():
    images = [spec_pb2.Image(), spec_pb2.Image()]
    whole, resized = activations("c1"), formed(activations("c1", "c2"), height=1, width=1)
    c1, c2 = (4 * math.prod(LAYERS[name][1]) for name in ("c1", "c2"))
    held = [
        make_plan(spec_pb2.JobSpec(images=images, visualizations=[it]), CARD).working_bytes for it in (whole, resized)
    ]
    assert held == [2 * c1, 2 * (c1 + c2) + max(c1, c2)]


# --- targets by label ---

IMAGENET = [
    "tench, Tinca tinca", "golden_retriever", "Labrador_retriever", "crane", "maillot", "Maillot",
    "flat-coated retriever", "maillot, tank suit", "crane", "Egyptian cat",
]  # fmt: skip


def labelled(*targets, labels=IMAGENET, images=1, **fields):
    card = model_pb2.Model()
    card.CopyFrom(CARD)
    card.labels[:] = labels
    spec = spec_pb2.JobSpec(visualizations=[saliency()], targets=targets, **fields)
    spec.images.extend(spec_pb2.Image() for _ in range(images))
    return make_plan(spec, card)


def several(*labels):
    return target(labels=spec_pb2.UnitLabels(values=labels))


@pytest.mark.parametrize(
    ("label", "unit"),
    [
        ("golden_retriever", 1),
        ("golden retriever", 1),
        ("Golden-Retriever", 1),
        (" GOLDEN   retriever ", 1),
        ("flat coated_retriever", 6),
        ("maillot", 4),
        ("Maillot", 5),
        ("tench", 0),
        ("tinca tinca", 0),
        ("tench, Tinca tinca", 0),
        ("Tank Suit", 7),
        ("egyptian cat", 9),
    ],
)
def test_a_label_is_its_unit_in_any_spelling_that_is_not_ambiguous(label, unit):
    plan = labelled(target(label=label))
    assert (plan.targets, plan.target_axis) == (((unit,),), False)


def test_labels_are_targets_one_an_image_and_several_an_image():
    plan = labelled(target(label="tench"), target(index=4), images=2)
    assert (plan.targets, plan.target_axis) == (((0,), (4,)), False)
    plan = labelled(several("maillot", "tench"), images=2)
    assert (plan.targets, plan.target_axis) == (((4, 0),) * 2, True)


@pytest.mark.parametrize(
    ("targets", "fields", "field", "message"),
    [
        ([target(label="crane")], {}, "[0].label", r"'crane', which 2 classes .* an index: crane: 3, crane: 8"),
        ([target(label="MAILLOT")], {}, "[0].label", "an index: maillot: 4, Maillot: 5"),
        ([target(label="retriever")], {}, "[0].label", "no label 'retriever' in model 'net'; the nearest: golden_ret"),
        ([target(label="retriever")], {}, "[0].label", ": 1, Labrador_retriever: 2, flat-coated retriever: 6$"),
        ([target(label="goldn retreiver")], {}, "[0].label", "the nearest: golden_retriever: 1"),
        ([target(label="tabby cat")], {}, "[0].label", "the nearest: Egyptian cat: 9"),
        ([target(label="xylophone")], {}, "[0].label", "no label 'xylophone' in model 'net'; GetModel lists those"),
        ([target(label="")], {}, "[0].label", "no label ''"),
        ([target(label="7")], {}, "[0].label", "a class index is to be given as a number"),
        ([target(label="x" * 300)], {}, "[0].label", "no label 'x{200}…'"),
        ([target(index=1), target(label="dog")], {"images": 2}, "[1].label", "no label 'dog'"),
        ([several("tench", "dog")], {}, "[0].labels.values[1]", "no label 'dog'"),
        ([several("tench", "Tench")], {}, "[0].labels", "names a unit twice"),
        ([several()], {}, "[0].labels", "is empty; name at least one unit"),
        ([target(label="tench")], {"labels": []}, "[0].label", "model 'net' has no labels; give a class index"),
        ([target(label="tench")], {"scored_layer": "c2"}, "[0].label", "the units of the scored layer 'c2' have none"),
        ([several("tench"), several("crane", "maillot")], {"images": 2}, "[1].labels.values[0]", "which 2 classes"),
    ],
)  # fmt: skip
def test_a_label_that_is_none_or_several_is_refused_with_what_there_is(targets, fields, field, message):
    with pytest.raises(SpecError, match=message) as caught:
        labelled(*targets, **fields)
    assert caught.value.field == f"spec.targets{field}"


def test_one_sigmoid_unit_is_two_classes_with_a_label_each():
    card = model_pb2.Model(
        name="net", input_shape=[8, 8, 3], score_layer="p", labels=["cat", "dog"], classes=2, methods=["vanilla"],
        layers=[model_pb2.Layer(name="p", kind="Dense", shape=[1])],
    )  # fmt: skip
    for given, unit in ((target(index=1), 1), (target(label="cat"), 0), (target(label="Dog"), 1)):
        spec = spec_pb2.JobSpec(images=[spec_pb2.Image()], visualizations=[saliency()], targets=[given])
        assert make_plan(spec, card).targets == ((unit,),)
