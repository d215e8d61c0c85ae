"""The calls of convlens.client.keras_vis agree with keras-vis' formulas, in NumPy on gradients by GradientTape."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import running
from scipy.ndimage import zoom

from convlens.client import Client, InvalidArgument
from convlens.client.keras_vis import GRAD_MODIFIERS, Model, find_layer_idx, visualize_cam, visualize_saliency
from convlens.worker.shapes import draw
from convlens.worker.shapes.model import load

IMAGE = draw(77, 3).image
EPSILON = 1e-7


@pytest.fixture(scope="module")
def model(tmp_path_factory, own_valkey):
    with running(tmp_path_factory.mktemp("service"), own_valkey) as service:
        service.worker("shapes=shapes")
        with Client(service.server()[1]) as client:
            yield Model(client, "shapes")


@pytest.fixture(scope="module")
def linear():
    """The shapes model with a linear last activation, as keras-vis' users prepare their models."""
    copy = load()
    copy.get_layer("predictions").activation = keras.activations.linear
    return copy


def gradient_and_output(linear, layer_idx, units, inner=None):
    """Return ∂(sum of the units' mean activations)/∂output of the layer at index `inner` or 0, and that output."""
    inner = linear.layers[inner or 0]
    both = keras.Model(linear.input, [inner.output, linear.layers[layer_idx].output])
    tail = keras.Model(inner.output, linear.layers[layer_idx].output)
    x = keras.applications.vgg16.preprocess_input(IMAGE[None].astype(np.float32))
    value = both(x)[0]
    with tf.GradientTape() as tape:
        tape.watch(value)
        output = tail(value)
        score = sum(tf.reduce_mean(output[..., unit]) for unit in units)
    return tape.gradient(score, value).numpy()[0], value.numpy()[0]


def normalize(array):
    return (array - array.min()) / (array.max() - array.min() + EPSILON)


def assert_close(array, expected):
    assert array.dtype == np.float32
    assert array.shape == expected.shape
    assert np.median(np.abs(array - expected)) < 1e-4
    assert np.corrcoef(array.ravel(), expected.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("name", ["predictions", "block5_pool", "block1_conv1"])
def test_a_layers_index_is_that_of_keras(model, linear, name):
    index = find_layer_idx(model, name)
    assert linear.layers[index].name == name
    assert model.card.layers[model.layer(index - len(linear.layers))].name == name


@pytest.mark.parametrize("units", [None, 4, [4], [4, 7]])
@pytest.mark.parametrize("modifier", ["absolute", None, "negate", "relu"])
def test_saliency_agrees_with_keras_vis(model, linear, units, modifier):
    all_units = range(11) if units is None else np.atleast_1d(units)
    gradient, _ = gradient_and_output(linear, -1, all_units)
    formula = {
        None: lambda g: g,
        "absolute": np.abs,
        "negate": np.negative,
        "relu": lambda g: np.maximum(g, 0),
    }[modifier]
    expected = normalize(formula(gradient[..., ::-1]).max(-1))
    assert_close(visualize_saliency(model, -1, units, IMAGE, grad_modifier=modifier), expected)


def test_the_other_modifiers_agree_with_their_formulas():
    g = np.array([-2, -0.5, 0.25, 4], np.float32)
    np.testing.assert_allclose(GRAD_MODIFIERS["invert"](g), [-0.5, -2, 4, 0.25], rtol=1e-5)
    np.testing.assert_allclose(GRAD_MODIFIERS["small_values"](g), [0.5, 2, 4, 0.25], rtol=1e-5)


def test_saliency_of_a_filter_of_an_inner_layer_agrees_with_keras_vis(model, linear):
    index = find_layer_idx(model, "block3_conv2")
    gradient, _ = gradient_and_output(linear, index, [5])
    assert_close(visualize_saliency(model, index, 5, IMAGE), normalize(np.abs(gradient).max(-1)))


def test_modified_backpropagation_agrees_with_the_sdk(model):
    plain, guided, *deconvnets = (
        visualize_saliency(model, -1, 4, IMAGE, backprop_modifier=modifier)
        for modifier in (None, "guided", "relu", "rectified", "deconv")
    )
    raw = model.client.saliency(IMAGE, "guided", model="shapes", target=4)["saliency/guided"][0]
    assert_close(guided, normalize(raw))
    assert np.abs(plain - guided).max() > 0.1
    for deconvnet in deconvnets:
        np.testing.assert_array_equal(deconvnet, deconvnets[0])


@pytest.mark.parametrize(("units", "layer"), [(None, None), (4, None), ([4, 7], None), (4, "block4_conv3")])
@pytest.mark.parametrize("modifier", [None, "negate"])
def test_cam_agrees_with_keras_vis(model, linear, units, layer, modifier):
    index = find_layer_idx(model, layer or "block5_pool")
    all_units = range(11) if units is None else np.atleast_1d(units)
    gradient, output = gradient_and_output(linear, -1, all_units, index)
    gradient = -gradient if modifier else gradient
    assert gradient.max() > 0
    gradient = gradient / (gradient.max() + EPSILON)
    heat = np.maximum((gradient.mean((0, 1)) * output).sum(-1), 0)
    expected = normalize(zoom(heat, 224 / heat.shape[0]))
    assert_close(visualize_cam(model, -1, units, IMAGE, index if layer else None, grad_modifier=modifier), expected)


@pytest.mark.parametrize(
    ("call", "field", "allowed"),
    [
        (lambda m: find_layer_idx(m, "nope"), "layer_name", "block1_conv1"),
        (lambda m: visualize_saliency(m, 0, 1, IMAGE), "layer_idx", "1…22"),
        (lambda m: visualize_saliency(m, 99, 1, IMAGE), "layer_idx", "1…22"),
        (lambda m: visualize_saliency(m, -1, 1, IMAGE, "nope"), "backprop_modifier", "'guided'"),
        (lambda m: visualize_saliency(m, -1, 1, IMAGE, grad_modifier="nope"), "grad_modifier", "'absolute'"),
        (lambda m: visualize_saliency(m, -1, [1, 2], IMAGE, "guided"), "filter_indices", "one unit"),
        (lambda m: visualize_cam(m, -1, 1, IMAGE, backprop_modifier="guided"), "backprop_modifier", "None"),
        (lambda m: visualize_cam(m, -1, 1, IMAGE, grad_modifier="invert"), "grad_modifier", "'negate'"),
        (lambda m: visualize_cam(m, 1, 1, IMAGE), "layer_idx", "no convolution"),
    ],
)
def test_an_unsupported_argument_is_refused_with_the_allowed_values(model, call, field, allowed):
    with pytest.raises(InvalidArgument, match=allowed) as refused:
        call(model)
    assert refused.value.field == field


def test_an_index_out_of_range_is_refused(model):
    with pytest.raises(InvalidArgument, match="allowed: 0…10"):
        visualize_saliency(model, -1, 11, IMAGE)
