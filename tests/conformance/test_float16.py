"""float16 against float32 on the trained network, by whatever kernels this processor has for it."""

from __future__ import annotations

import numpy as np
import pytest

from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import CAM_METHODS, SALIENCY_METHODS, Activation, GradCAM, Plan, Saliency
from convlens.worker.shapes import draw
from convlens.worker.shapes.model import PREPROCESS, load

CAM = "block5_conv3"
MAPS = {
    **{name: Saliency(name, layer=CAM if row.times == "cam" else "") for name, row in SALIENCY_METHODS.items()},
    **{name: GradCAM(CAM, method=name) for name in CAM_METHODS},
    "activations": Activation("block3_conv1"),
}


@pytest.fixture(scope="module")
def outputs():
    scenes = np.stack([draw(828, i).image for i in range(11)])
    plan = Plan(tuple(MAPS.values()), predictions=11)
    exact = Network(load(), PREPROCESS).run(scenes, plan)
    return exact, Network(load(), PREPROCESS, "float16").run(scenes, plan, exact.targets)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_keeps_its_direction_and_size(outputs, name):
    exact, rough = (output.maps[MAPS[name]].reshape(11, -1).astype(np.float64) for output in outputs)
    norms = np.linalg.norm(exact, axis=1), np.linalg.norm(rough, axis=1)
    assert np.median((exact * rough).sum(1) / norms[0] / norms[1]) > 0.998
    np.testing.assert_allclose(np.median(norms[1] / norms[0]), 1, atol=0.01)


def test_classes_are_the_same_and_scores_close(outputs):
    exact, rough = outputs
    np.testing.assert_array_equal(exact.predicted[:, 0], rough.predicted[:, 0])
    np.testing.assert_allclose(rough.scores, exact.scores, rtol=0.005)
