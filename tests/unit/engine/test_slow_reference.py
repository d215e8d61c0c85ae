"""The engine against a slow float64 reference: scores, and gradients by finite differences."""

from __future__ import annotations

import nets
import numpy as np
import numpy_reference
import pytest

from convlens.worker.engine.kinds import TRAINING_ONLY
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import Plan, Saliency
from convlens.worker.engine.rules import RULES

SIGNED = Saliency(reduction="none")


@pytest.fixture(params=nets.BUILDERS)
def model(request):
    return nets.build(request.param)


def test_scores_are_those_of_the_definitions(model):
    network = Network(model, "none")
    x = nets.images(3)
    expected = numpy_reference.logits(model, x)
    for unit in range(network.units):
        actual = network.run(x, Plan((SIGNED,)), np.full((3, 1), unit, np.int32)).scores[:, 0]
        np.testing.assert_allclose(actual, expected[:, unit], rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_gradients_are_finite_differences(model):
    network = Network(model, "none")
    x = nets.images(2).astype(np.float64)
    unit = network.units - 1
    gradient = network.run(x.astype(np.float32), Plan((SIGNED,)), np.full((2, 1), unit, np.int32)).maps[SIGNED][:, 0]
    rng = np.random.default_rng(9)
    for image, actual in zip(x, gradient.astype(np.float64), strict=True):
        directions = [actual / np.linalg.norm(actual), *rng.normal(size=(6, *image.shape))]
        for direction in directions:
            expected = numpy_reference.directional(model, image, unit, direction)
            scale = np.linalg.norm(actual) * np.linalg.norm(direction)
            assert abs((actual * direction).sum() - expected) < 1e-4 * scale


def test_every_layer_with_a_rule_is_in_one_of_the_networks():
    built = {type(layer).__name__ for name in nets.BUILDERS for layer in nets._layers(nets.build(name))}
    functions = {"nn.relu"}  # what Keras 2 layers call
    assert set(RULES) - built - functions <= TRAINING_ONLY
