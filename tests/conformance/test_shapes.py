"""The bundled model classifies unseen scenes correctly, and its maps point at the object.

The only place where "this map points at the right thing" has an answer: each scene's mask is known.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import GradCAM, Plan
from convlens.worker.shapes import LABELS, draw
from convlens.worker.shapes import model as shapes

SEED = 9001
"""The seed of scenes that neither training nor its report drew."""
COUNT = 50 * len(LABELS)
CAM = GradCAM("block5_conv3", upsampled=True)


@pytest.fixture(scope="module")
def model():
    return shapes.load()


@pytest.fixture(scope="module")
def scenes():
    return [draw(SEED, i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def outputs(model, scenes):
    network = Network(model, shapes.PREPROCESS)
    images = np.stack([scene.image for scene in scenes])
    return [network.run(images[i : i + 25], Plan((CAM,), predictions=1)) for i in range(0, COUNT, 25)]


@pytest.fixture(scope="module")
def is_correct(scenes, outputs):
    predicted = np.concatenate([output.predicted[:, 0] for output in outputs])
    return predicted == [scene.label for scene in scenes]


def test_the_topology_is_vgg16s_with_an_eighth_of_the_channels(model):
    stock = keras.applications.VGG16(weights=None)
    assert [layer.name for layer in model.layers][1:] == [layer.name for layer in stock.layers][1:]
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in stock.layers]
    for ours, theirs in zip(model.layers[1:-1], stock.layers[1:-1], strict=True):
        assert ours.output.shape[-1] * 8 == theirs.output.shape[-1], ours.name


def test_the_weights_are_small_enough_to_ship():
    assert shapes.WEIGHTS.stat().st_size <= 5 << 20


def test_more_than_95_percent_of_unseen_scenes_are_classified_correctly(is_correct):
    assert is_correct.mean() > 0.95


def test_grad_cams_maximum_lies_on_the_object_in_nine_of_ten_correct_scenes(scenes, outputs, is_correct):
    maps = np.concatenate([output.maps[CAM][:, 0] for output in outputs])
    peaks = [np.unravel_index(map_.argmax(), map_.shape) for map_ in maps]
    hits = np.array([scene.mask[peak] for scene, peak in zip(scenes, peaks, strict=True)])
    assert hits[is_correct].mean() >= 0.9
