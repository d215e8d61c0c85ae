"""The engine against GradientTape, and the invariants that every map keeps on every kind of network."""

from __future__ import annotations

import keras
import nets
import numpy as np
import pytest
from keras import layers as L

from convlens.worker.engine.cams import CAMS
from convlens.worker.engine.network import MAX_TRACES, Network
from convlens.worker.engine.plan import ALL_UNITS, PREDICTED, SALIENCY_METHODS, Activation, GradCAM, Plan, Saliency

MAPS = [
    *(Saliency(method, layer="c3" if row.times == "cam" else "") for method, row in SALIENCY_METHODS.items()),
    Saliency(reduction="none"),
    *(GradCAM("c3", method=method) for method in CAMS),
    GradCAM("c3", upsampled=True),
]
EVERYTHING = Plan((*MAPS, Activation("c1"), Activation("c3", (2, 0))), predictions=1)


@pytest.fixture(scope="module", params=nets.BUILDERS)
def model(request):
    return nets.build(request.param)


@pytest.fixture(scope="module")
def network(model):
    return Network(model, "none")


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1e-12, np.abs(expected).max()))


def test_gradients_and_grad_cam_are_those_of_the_tape(model, network):
    x = nets.images(3)
    unit = network.units - 1
    gradient, output, inner = nets.taped(model, x.astype(np.float32), unit, "c3")
    outputs = network.run(x, EVERYTHING, np.full((3, 1), unit, np.int32))
    close(outputs.maps[Saliency(reduction="none")][:, 0], gradient)
    close(outputs.maps[Saliency()][:, 0], np.abs(gradient).max(-1))
    cam = np.maximum(np.einsum("nhwc,nc->nhw", output, inner.mean((1, 2))), 0)
    close(outputs.maps[GradCAM("c3")][:, 0], cam)
    close(outputs.maps[Activation("c3", (2, 0))], output[..., [2, 0]])


@pytest.mark.parametrize("method", SALIENCY_METHODS)
def test_every_saliency_method_is_its_formula_on_the_tape(model, network, method):
    x = nets.images(2)
    unit = network.units - 1
    row = SALIENCY_METHODS[method]
    expected = nets.ruled(model, x.astype(np.float32), unit, row.rule)
    item = Saliency(method, reduction="none", layer="c3" if row.times == "cam" else "")
    outputs = network.run(x, Plan((item, GradCAM("c3", upsampled=True))), np.full((2, 1), unit, np.int32))
    if row.times == "input":
        expected = expected * x
    if row.times == "cam":
        expected = expected * outputs.maps[GradCAM("c3", upsampled=True)][:, 0, ..., None]
    close(outputs.maps[item][:, 0], expected)


def plus_plus(a, g):
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = np.nan_to_num(g**2 / (2 * g**2 + a.sum((1, 2), keepdims=True) * g**3))
    return (a * (alpha * np.maximum(g, 0)).sum((1, 2), keepdims=True)).sum(-1)


FORMULAS = {
    "grad_cam": lambda a, g: (a * g.mean((1, 2), keepdims=True)).sum(-1),
    "grad_cam_plus_plus": plus_plus,
    "hires_cam": lambda a, g: (a * g).sum(-1),
    "layer_cam": lambda a, g: (a * np.maximum(g, 0)).sum(-1),
}


@pytest.mark.parametrize("method", CAMS)
def test_every_class_activation_map_is_its_papers_formula(model, network, method):
    x = nets.images(2)
    unit = network.units - 1
    _, a, g = nets.taped(model, x.astype(np.float32), unit, "c3")
    actual = network.run(x, Plan((GradCAM("c3", method=method),)), np.full((2, 1), unit, np.int32))
    expected = np.maximum(FORMULAS[method](a.astype(np.float64), g.astype(np.float64)), 0)
    close(actual.maps[GradCAM("c3", method=method)][:, 0], expected, 1e-4)


def test_hires_cam_is_grad_cam_where_gradients_are_constant_over_space():
    inputs = keras.Input((nets.SIZE, nets.SIZE, 3))
    a = L.Conv2D(8, 3, activation="relu", name="c3")(inputs)
    network = Network(keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(a))), "none")
    plan = Plan((GradCAM("c3"), GradCAM("c3", method="hires_cam")))
    one, other = network.run(nets.images(2), plan).maps.values()
    close(one, other)


def test_activations_and_predictions_are_those_of_keras(model, network):
    x = nets.images(2)
    outputs = network.run(x, Plan((Activation(network.layers[-1].name),), predictions=1))
    expected = model.predict(x.astype(np.float32), verbose=0)
    close(outputs.maps[Activation(network.layers[-1].name)], expected)
    best = (expected[:, 0] >= 0.5).astype(int) if network.is_binary else expected.argmax(-1)
    np.testing.assert_array_equal(outputs.predicted[:, 0], best)


def test_a_batch_gives_the_maps_of_its_images_alone(network):
    x = nets.images(4)
    targets = np.array([[0], [PREDICTED], [ALL_UNITS], [0]], np.int32)
    batched = network.run(x, EVERYTHING, targets)
    for i in range(4):
        single = network.run(x[i : i + 1], EVERYTHING, targets[i : i + 1])
        for item, array in single.maps.items():
            close(batched.maps[item][i : i + 1], array)


def test_targets_are_resolved_by_rank_and_explained_by_their_scores(network):
    x = nets.images(2)
    units = network.units
    ranked = network.run(x, Plan((Saliency(),), targets=units))
    for i in range(2):
        assert (np.diff(ranked.scores[i]) <= 0).all()
        chosen = network.run(x[i : i + 1], Plan((Saliency(),), targets=units), ranked.targets[i : i + 1])
        close(chosen.maps[Saliency()][0], ranked.maps[Saliency()][i])
    every = network.run(x, Plan((Saliency(reduction="none"),)), np.full((2, 1), ALL_UNITS, np.int32))
    each = network.run(
        x, Plan((Saliency(reduction="none"),), targets=units), np.tile(np.arange(units, dtype=np.int32), (2, 1))
    )
    close(every.maps[Saliency(reduction="none")][:, 0], each.maps[Saliency(reduction="none")].mean(1))
    close(every.scores[:, 0], each.scores.mean(1))


def test_guided_differs_from_plain(network):
    outputs = network.run(nets.images(1), EVERYTHING)
    plain, guided = outputs.maps[Saliency()], outputs.maps[Saliency("guided")]
    assert np.abs(plain - guided).max() > 0.05 * plain.max()


def test_any_layer_can_be_scored_by_a_channels_mean(model, network):
    x = nets.images(2)
    outputs = network.run(
        x, Plan((Saliency(reduction="none"), GradCAM("c1")), scored_layer="c3"), np.ones((2, 1), np.int32)
    )
    activation = network.run(x, Plan((Activation("c3"),))).maps[Activation("c3")]
    close(outputs.scores[:, 0], activation[..., 1].mean((1, 2)))
    assert outputs.probabilities is None
    step = np.float32(1e-2)
    shifted = x.astype(np.float32)
    gradient = outputs.maps[Saliency(reduction="none")][:, 0]
    direction = gradient / np.abs(gradient).max()
    up = network.run(np.clip(shifted + step * direction, 0, 255), Plan((Activation("c3"),))).maps[Activation("c3")]
    slope = (up[..., 1].mean((1, 2)) - activation[..., 1].mean((1, 2))) / step
    expected = (gradient * direction).sum((1, 2, 3))
    np.testing.assert_allclose(slope, expected, rtol=0.1)


def test_the_model_stays_bit_identical_after_runs_and_errors(model, network):
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(ValueError, match="target"):
        network.run(nets.images(1), EVERYTHING, np.full((1, 1), 99, np.int32))
    network.run(nets.images(1), EVERYTHING)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_changing_classes_and_batch_sizes_compile_nothing_new(network):
    plan = Plan((Saliency(),))
    network.run(nets.images(1), plan, np.zeros((1, 1), np.int32))
    before = network.traces
    for count in (1, 2, 3):
        for unit in range(network.units):
            network.run(nets.images(count), plan, np.full((count, 1), unit, np.int32))
    assert network.traces == before


def test_the_order_of_maps_compiles_nothing_new(network):
    x = nets.images(2)
    one = network.run(x, Plan((Saliency(), GradCAM("c3"), Activation("c1")), predictions=1))
    before = network.traces
    other = network.run(x, Plan((Activation("c1"), GradCAM("c3"), Saliency(), GradCAM("c3")), predictions=1))
    assert network.traces == before
    assert list(other.maps) == [Activation("c1"), GradCAM("c3"), Saliency()]
    for item, map_ in one.maps.items():
        np.testing.assert_array_equal(other.maps[item], map_)


def test_the_least_recently_used_plans_are_dropped():
    network = Network(nets.build("fused"), "none")
    for channel in range(MAX_TRACES + 3):
        network.run(nets.images(1), Plan((Activation("c1", (channel % 6,) * (channel // 6 + 1)),)))
    assert network.traces == MAX_TRACES


def test_a_constant_score_gives_zeros():
    model = nets.build("fused")
    kernel, bias = model.get_layer("out").get_weights()
    model.get_layer("out").set_weights([kernel * 0, bias])
    outputs = Network(model, "none").run(nets.images(1), EVERYTHING)
    for item in MAPS:
        assert not outputs.maps[item].any()


def test_a_constant_added_to_all_logits_changes_no_map():
    model = nets.build("fused")
    before = Network(model, "none").run(nets.images(2), EVERYTHING)
    kernel, bias = model.get_layer("out").get_weights()
    model.get_layer("out").set_weights([kernel, bias + 7])
    after = Network(model, "none").run(nets.images(2), EVERYTHING)
    for item, array in before.maps.items():
        close(after.maps[item], array)


@pytest.mark.parametrize("scheme", ["caffe", "unit"])
def test_preprocessing_is_that_of_keras_and_gradients_are_in_rgb(scheme):
    model = nets.build("fused")
    x = nets.images(2)
    prepared = (
        keras.applications.vgg16.preprocess_input(x.astype(np.float32)) if scheme == "caffe" else x.astype("f4") / 255
    )
    gradient, _, _ = nets.taped(model, prepared, 2, "c3")
    actual = Network(model, scheme).run(x, Plan((Saliency(reduction="none"),)), np.full((2, 1), 2, np.int32))
    close(actual.maps[Saliency(reduction="none")][:, 0], gradient[..., ::-1] if scheme == "caffe" else gradient)


@pytest.mark.parametrize(
    "plan",
    [Plan((GradCAM("c3"),), scored_layer="c1"), Plan((GradCAM("nope"),)), Plan((Saliency(),), scored_layer="no")],
)
def test_inconsistent_plans_are_refused(network, plan):
    with pytest.raises(ValueError, match="layer"):
        network.run(nets.images(1), plan)
