"""bfloat16 against float32: bounds for every method on the trained network, and for single-pass ones on VGG16."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.stats import rankdata

from convlens.v1 import model_pb2
from convlens.worker.engine.explain import explain
from convlens.worker.engine.methods.integrated_gradients import IntegratedGradients, StraightPath
from convlens.worker.engine.methods.occlusion import Occlusion, SlidingPatch
from convlens.worker.engine.methods.score_cam import ScoreCAM
from convlens.worker.engine.methods.smooth_grad import MOMENTS, GaussianNoise, SmoothGrad
from convlens.worker.engine.methods.xrai import XRAI
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import CAM_METHODS, SALIENCY_METHODS, Activation, GradCAM, Plan, Saliency
from convlens.worker.method_registry import METHODS
from convlens.worker.models.loaders import load as load_source
from convlens.worker.models.model_protocol import ModelUnavailable
from convlens.worker.models.source import parse
from convlens.worker.models.stock import randomise
from convlens.worker.shapes import draw
from convlens.worker.shapes.model import PREPROCESS, load

CAM = "block5_conv3"
MAPS = {
    **{name: Saliency(name, layer=CAM if row.times == "cam" else "") for name, row in SALIENCY_METHODS.items()},
    **{name: GradCAM(CAM, method=name) for name in CAM_METHODS},
    "activations": Activation("block3_conv1"),
}
MANY_PASSES = {
    **{name: SmoothGrad(GaussianNoise(4, 0.15), name) for name in MOMENTS},
    "integrated_gradients": IntegratedGradients(StraightPath(4)),
    "xrai": XRAI(StraightPath(4)),
    "score_cam": ScoreCAM(CAM),
    "occlusion": Occlusion(SlidingPatch(56, 56, None)),
}
COSINES = {
    "vanilla": 0.96,
    "gradient_x_input": 0.95,
    "deconvnet": 0.96,
    "smooth_grad": 0.98,
    "smooth_grad_squared": 0.97,
    "var_grad": 0.97,
    "integrated_gradients": 0.98,
}
"""The least cosine similarity where a switched ReLU or pool changes a whole path; for all others 0.99."""
ON_VGG16 = {"vanilla": 0.93, "gradient_x_input": 0.92, "deconvnet": 0.98, "hires_cam": 0.95}
"""The least cosine similarity on VGG16 with random weights, for images of noise."""


def cosines(exact, rough):
    a, b = (map_.reshape(len(map_), -1).astype(np.float64) for map_ in (exact, rough))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def rank_correlations(exact, rough):
    return [np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in zip(exact, rough, strict=True)]


@pytest.fixture(scope="module")
def outputs():
    scenes = np.stack([draw(828, i).image for i in range(22)])
    plan = Plan(tuple(MAPS.values()), predictions=11)
    exact = Network(load(), PREPROCESS).run(scenes, plan)
    return exact, Network(load(), PREPROCESS, "bfloat16").run(scenes, plan, exact.targets)


@pytest.fixture(scope="module")
def many_pass_outputs():
    scenes = np.stack([draw(828, i).image for i in range(2)])
    exact = explain(Network(load(), PREPROCESS), scenes, MANY_PASSES.values(), batch_size=16)
    rough = Network(load(), PREPROCESS, "bfloat16")
    return exact, explain(rough, scenes, MANY_PASSES.values(), exact.targets, batch_size=16)


@pytest.fixture(scope="module")
def on_vgg16():
    model = keras.applications.VGG16(weights=None)
    randomise(model, 1)
    noise = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    plan = Plan(tuple(MAPS.values()), predictions=1)
    exact = Network(model, "caffe").run(noise, plan)
    return exact, Network(model, "caffe", "bfloat16").run(noise, plan, exact.targets)


def test_every_method_has_its_bounds():
    assert MAPS.keys() | MANY_PASSES.keys() == METHODS.keys()


@pytest.mark.parametrize("name", MAPS)
def test_a_map_keeps_its_direction(outputs, name):
    exact, rough = (output.maps[MAPS[name]] for output in outputs)
    assert np.median(cosines(exact, rough)) > COSINES.get(name, 0.99)
    assert rough.dtype == np.float32
    assert np.abs(exact - rough).max() > 0


@pytest.mark.parametrize("name", MAPS)
def test_a_map_keeps_its_order(outputs, name):
    assert np.median(rank_correlations(*(output.maps[MAPS[name]] for output in outputs))) > 0.95


@pytest.mark.parametrize("name", MANY_PASSES)
def test_maps_of_many_passes_keep_direction_and_order(many_pass_outputs, name):
    exact, rough = (output.maps[MANY_PASSES[name]] for output in many_pass_outputs)
    assert np.median(cosines(exact, rough)) > COSINES.get(name, 0.99)
    assert np.median(rank_correlations(exact, rough)) > 0.95
    assert np.abs(exact - rough).max() > 0


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_vgg16_keep_their_direction(on_vgg16, name):
    exact, rough = on_vgg16
    assert np.median(cosines(exact.maps[MAPS[name]], rough.maps[MAPS[name]])) > ON_VGG16.get(name, 0.99)
    np.testing.assert_array_equal(exact.predicted, rough.predicted)


def test_classes_are_the_same_and_scores_close(outputs):
    exact, rough = outputs
    np.testing.assert_array_equal(exact.predicted[:, 0], rough.predicted[:, 0])
    np.testing.assert_allclose(rough.scores, exact.scores, rtol=0.05)
    assert len(np.unique(rough.predicted_logits)) > 200  # bfloat16's eight bits would make them fewer


def test_precision_is_an_option_of_a_model_and_on_its_card():
    cards = [load_source(parse(f"s=shapes{option}")).card for option in ("", ",precision=bfloat16")]
    assert [card.precision for card in cards] == [model_pb2.PRECISION_FLOAT32, model_pb2.PRECISION_BFLOAT16]
    assert cards[0].digest != cards[1].digest
    with pytest.raises(ModelUnavailable, match="no precision 'int8'; allowed: float32, bfloat16"):
        parse("s=shapes,precision=int8")
