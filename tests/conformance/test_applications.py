"""Networks of keras.applications that are no chains, from their .keras files, against GradientTape on their layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from convlens.worker.engine.cams import CAMS
from convlens.worker.engine.explain import explain
from convlens.worker.engine.methods.integrated_gradients import IntegratedGradients, StraightPath
from convlens.worker.engine.plan import GradCAM, Plan, Saliency
from convlens.worker.models.file import load
from convlens.worker.models.source import Source

SIZE = 64
UNIT = 2
SIGNED = Saliency(reduction="none")
NETWORKS = {
    "ResNet50": ("conv5_block3_out", "conv4_block2_out", "caffe", True),
    "MobileNetV2": ("out_relu", "block_6_project_BN", "tf", True),
    "EfficientNetB0": ("top_activation", "block4a_project_bn", "none", False),
    "DenseNet121": ("relu", "pool3_pool", "torch", True),
}
"""By name: the default layer of class activation maps, another point that every path passes, the preprocessing, and
whether that is assumed."""


@pytest.fixture(scope="module", params=NETWORKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """A network with seeded weights, whose BatchNorm statistics and scales are far from trivial."""
    keras.utils.set_random_seed(5)
    model = getattr(keras.applications, name)(weights=None, classes=6, input_shape=(SIZE, SIZE, 3))
    rng = np.random.default_rng(6)
    for variable in model.weights:
        if variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith(("moving_mean", "beta", "bias")):
            variable.assign(rng.normal(0, 0.1, variable.shape))
    return model


@pytest.fixture(scope="module")
def served(name, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / f"{name}.keras"
    model.save(path)
    return load(Source("m", "file", str(path)))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(7).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)


def preprocess(name, images):
    mode = NETWORKS[name][2]
    x = images.astype(np.float32)
    return x if mode == "none" else keras.applications.imagenet_utils.preprocess_input(x, mode=mode)


def in_rgb(name, gradient):
    return gradient[..., ::-1] if NETWORKS[name][2] == "caffe" else gradient


def logit_and_gradient(model, x, layer=None):
    """Return UNIT's logit, its gradient with respect to the input or a layer's output, and this input or output."""
    kernel, bias = map(tf.constant, model.layers[-1].get_weights())
    start = model.input if layer is None else model.get_layer(layer).output
    value = tf.constant(x) if layer is None else keras.Model(model.input, start)(x, training=False)
    above = keras.Model(start, model.layers[-1].input)
    with tf.GradientTape() as tape:
        tape.watch(value)
        scores = (above(value, training=False) @ kernel + bias)[:, UNIT]
    return scores.numpy(), tape.gradient(scores, value).numpy(), value.numpy()


def assert_alike(actual, expected):
    """Compare gradients through rectifiers: by median and angle, since a tie that flips switches a whole path."""
    assert np.median(np.abs(actual - expected)) <= 1e-5 * np.abs(expected).max()
    assert 1 - (actual * expected).sum() / np.linalg.norm(actual) / np.linalg.norm(expected) <= 1e-3


def test_the_card_describes_the_model(name, served):
    layer, other, scheme, is_assumed = NETWORKS[name]
    card = served.card
    assert (card.cam_layer, card.preprocess, card.preprocess_assumed) == (layer, scheme, is_assumed)
    assert {other, "predictions"} <= {layer.name for layer in card.layers}
    assert set(card.unavailable_methods) == {"guided", "deconvnet", "guided_grad_cam"}
    assert card.classes == 6


def test_predictions_and_saliency_are_those_of_keras(name, model, served, images):
    x = preprocess(name, images)
    scores, gradient, _ = logit_and_gradient(model, x)
    outputs = served.run(images, Plan((SIGNED,), predictions=6), np.full((2, 1), UNIT, np.int32))
    np.testing.assert_allclose(outputs.scores[:, 0], scores, atol=1e-4 * np.abs(scores).max())
    assert_alike(outputs.maps[SIGNED][:, 0], in_rgb(name, gradient))
    probabilities = model.predict(x, verbose=0)
    np.testing.assert_allclose(outputs.predicted_probabilities, -np.sort(-probabilities), atol=1e-5)


@pytest.mark.parametrize("position", [0, 1])
def test_every_class_activation_map_is_its_formula(name, model, served, images, position):
    layer = NETWORKS[name][position]
    _, g, a = logit_and_gradient(model, preprocess(name, images), layer)
    items = {method: GradCAM(layer, method=method, signed=True) for method in CAMS}
    outputs = served.run(images, Plan(tuple(items.values())), np.full((2, 1), UNIT, np.int32))
    for method, item in items.items():
        expected = CAMS[method](a, g).numpy()
        np.testing.assert_allclose(
            outputs.maps[item][:, 0], expected, atol=2e-3 * np.abs(expected).max(), err_msg=method
        )


def test_integrated_gradients_are_the_sum_over_the_path(name, model, served, images):
    steps, white = 4, np.full_like(images[:1], 255)
    path = [white + (step + 0.5) / steps * (images[:1].astype(np.float32) - white) for step in range(steps)]
    gradients = sum(
        in_rgb(name, logit_and_gradient(model, preprocess(name, point.astype(np.float32)))[1]) for point in path
    )
    item = IntegratedGradients(StraightPath(steps, ((255.0, 255.0, 255.0),)), "none")
    scale = np.array(served._network.preprocess.scale)
    expected = gradients * (images[:1].astype(np.float32) - white) * scale / steps
    outputs = explain(served._network, images[:1], [item], np.full((1, 1), UNIT, np.int32))
    assert_alike(outputs.maps[item][:, 0], expected)
