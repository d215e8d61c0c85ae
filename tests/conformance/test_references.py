"""The maps of Captum (PyTorch) and Xplique on the same weights, stored by the scripts in references/.

Class activation maps and activations agree in every pixel; gradients by median and angle, since a ReLU or a
pool whose tie flips by rounding switches a whole path.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

from convlens.worker.engine.explain import explain
from convlens.worker.engine.methods.integrated_gradients import IntegratedGradients, StraightPath
from convlens.worker.engine.methods.occlusion import Occlusion, SlidingPatch
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import Activation, GradCAM, Saliency, Score

HERE = Path(__file__).parent / "references"
_spec = importlib.util.spec_from_file_location("references_network", HERE / "network.py")
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PIXELS = {  # the engine's visualization by the stored array's name; compared by median and angle
    "vanilla": Saliency(reduction="none"),
    "guided": Saliency("guided", "none"),
    "deconvnet": Saliency("deconvnet", "none"),
    "gradient_x_input": Saliency("gradient_x_input", "none"),
    "integrated_gradients": IntegratedGradients(StraightPath(reference.STEPS, (BLACK, WHITE)), "none"),
}
MAPS = {  # compared in every pixel
    "grad_cam": GradCAM(reference.LAYER),
    "grad_cam_pool": GradCAM(reference.POOL),
    "grad_cam_earlier": GradCAM(reference.EARLIER),
    "occlusion": Occlusion(SlidingPatch(reference.PATCH, reference.STRIDE, BLACK)),
    "activations": Activation(reference.EARLIER),
}
STORED = {name: dict(np.load(HERE / f"{name}.npz")) for name in ("captum", "xplique")}
PAIRS = [(peer, name) for peer, arrays in STORED.items() for name in arrays if name not in {"digest", "logits"}]


@pytest.fixture(scope="module")
def outputs():
    inputs = x = keras.Input((reference.SIZE, reference.SIZE, 3))
    for block, (count, channels) in enumerate(reference.BLOCKS, start=1):
        for i in range(1, count + 1):
            x = L.Conv2D(channels, 3, padding="same", activation="relu", name=f"block{block}_conv{i}")(x)
        x = L.MaxPooling2D(name=f"block{block}_pool")(x)
    x = L.Flatten()(x)
    for name in ("fc1", "fc2"):
        x = L.Dense(reference.weights()[name][1].size, activation="relu", name=name)(x)
    model = keras.Model(inputs, L.Dense(reference.UNITS, activation="softmax", name="predictions")(x))
    for name, pair in reference.weights().items():
        model.get_layer(name).set_weights(pair)
    requested = [*PIXELS.values(), *MAPS.values(), Saliency(), Score()]
    return explain(Network(model, "none"), reference.images(), requested, reference.TARGETS[:, None].astype(np.int32))


@pytest.mark.parametrize("peer", STORED)
def test_the_references_are_of_this_network(peer):
    assert str(STORED[peer]["digest"]) == reference.digest()


@pytest.mark.parametrize("peer", STORED)
def test_scores_are_those_of_the_peer(outputs, peer):
    np.testing.assert_allclose(outputs.scores[:, 0], STORED[peer]["logits"][[0, 1], reference.TARGETS], rtol=1e-4)


def test_every_reference_is_compared():
    assert {name for _, name in PAIRS} == {*PIXELS, *MAPS}


@pytest.mark.parametrize(("peer", "name"), PAIRS)
def test_a_map_is_that_of_the_peer(outputs, peer, name):
    expected = STORED[peer][name].astype(np.float64)
    item = (PIXELS | MAPS)[name]
    if expected.ndim == 3 and name in PIXELS:
        item = Saliency(item.method)  # the channels' largest absolute value
    actual = outputs.maps[item].astype(np.float64)
    actual = actual if isinstance(item, Activation) else actual[:, 0]
    assert actual.shape == expected.shape
    if name in MAPS:
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        return
    cosine = (actual * expected).sum() / np.linalg.norm(actual) / np.linalg.norm(expected)
    assert 1 - cosine < 1e-4
    assert np.median(np.abs(actual - expected)) <= 1e-6 * np.abs(expected).max()
