"""The four maps on a full-size stock VGG16 with seeded weights, against tf-keras-vis and Keras on the same weights.

Judged as docs/architecture.md says: class activation maps and activations by their maximum; saliency by median and
angle, since a tie of a ReLU or a pool that flips by rounding switches a whole path.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency as PeerSaliency
from tf_keras_vis.utils.model_modifiers import GuidedBackpropagation, ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import Activation, GradCAM, Plan, Saliency
from convlens.worker.models.stock import randomise

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
UNITS = [281, 7, 657]
PLAN = Plan((Saliency(), Saliency("guided"), GradCAM("block5_conv3"), Activation("block1_conv1")))


@pytest.fixture(scope="module")
def photos():
    names = ["chelsea.png", "coffee.png", "rocket.jpg"]
    return np.stack([np.asarray(Image.open(PHOTOS / name).convert("RGB").resize((224, 224))) for name in names])


@pytest.fixture(scope="module")
def model():
    model = keras.applications.VGG16(weights=None)
    randomise(model, 5)
    return model


@pytest.fixture(scope="module")
def outputs(model, photos):
    return Network(model, "caffe").run(photos, PLAN, np.array(UNITS, np.int32)[:, None])


@pytest.fixture(scope="module")
def prepared(photos):
    return keras.applications.vgg16.preprocess_input(photos.astype(np.float32))


def assert_alike(actual, expected):
    assert np.median(np.abs(actual - expected)) <= 1e-6 * expected.max()
    angle = 1 - (actual * expected).sum() / np.linalg.norm(actual) / np.linalg.norm(expected)
    assert angle <= 1e-3  # one flipped tie gives some 1e-5, a wrong rule some 1e-1


def peer(model, modifiers, prepared):
    maps = PeerSaliency(model, model_modifier=modifiers, clone=True)(
        CategoricalScore(UNITS), prepared, normalize_map=False, keepdims=True
    )
    return np.abs(np.asarray(maps)).max(-1)


def test_saliency_is_that_of_tf_keras_vis(model, outputs, prepared):
    assert_alike(outputs.maps[Saliency()][:, 0], peer(model, [ReplaceToLinear()], prepared))


def test_guided_saliency_is_that_of_tf_keras_vis(model, outputs, prepared):
    expected = peer(model, [ReplaceToLinear(), GuidedBackpropagation()], prepared)
    assert_alike(outputs.maps[Saliency("guided")][:, 0], expected)


def test_grad_cam_is_that_of_tf_keras_vis(model, outputs, prepared):
    expected = np.asarray(
        Gradcam(model, model_modifier=ReplaceToLinear(), clone=True)(
            CategoricalScore(UNITS), prepared, penultimate_layer="block5_conv3", normalize_cam=False, expand_cam=False
        )
    )
    actual = outputs.maps[GradCAM("block5_conv3")][:, 0]
    assert np.abs(actual - expected).max() <= 1e-5 * expected.max()


def test_activations_are_those_of_keras(model, outputs, prepared):
    expected = keras.Model(model.input, model.get_layer("block1_conv1").output).predict(prepared, verbose=0)
    assert np.abs(outputs.maps[Activation("block1_conv1")] - expected).max() <= 4e-6 * expected.max()
