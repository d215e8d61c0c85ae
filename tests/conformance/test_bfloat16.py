"""bfloat16 against float32 on the trained network: how far each map may be off, and that classes stay."""

from __future__ import annotations

import numpy as np
import pytest

from convlens.v1 import model_pb2
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import CAM_METHODS, SALIENCY_METHODS, Activation, GradCAM, Plan, Saliency
from convlens.worker.models.catalogue import load as load_source
from convlens.worker.models.served import ModelUnavailable
from convlens.worker.models.source import parse
from convlens.worker.shapes import draw
from convlens.worker.shapes.model import PREPROCESS, load

CAM = "block5_conv3"
MAPS = {
    **{name: Saliency(name, layer=CAM if row.times == "cam" else "") for name, row in SALIENCY_METHODS.items()},
    **{name: GradCAM(CAM, method=name) for name in CAM_METHODS},
    "activations": Activation("block3_conv1"),
}
COSINES = {"vanilla": 0.96, "gradient_x_input": 0.95, "deconvnet": 0.96}
"""Where a switched ReLU or pool sends a whole path elsewhere; for all others 0.99."""


@pytest.fixture(scope="module")
def outputs():
    scenes = np.stack([draw(828, i).image for i in range(22)])
    plan = Plan(tuple(MAPS.values()), predictions=11)
    exact = Network(load(), PREPROCESS).run(scenes, plan)
    return exact, Network(load(), PREPROCESS, "bfloat16").run(scenes, plan, exact.targets)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_keeps_its_direction(outputs, name):
    exact, rough = (it.maps[MAPS[name]].reshape(22, -1).astype(np.float64) for it in outputs)
    cosines = (exact * rough).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert np.median(cosines) > COSINES.get(name, 0.99)
    assert outputs[1].maps[MAPS[name]].dtype == np.float32
    assert np.abs(exact - rough).max() > 0


def test_classes_and_scores_stay(outputs):
    exact, rough = outputs
    np.testing.assert_array_equal(exact.predicted[:, 0], rough.predicted[:, 0])
    np.testing.assert_allclose(rough.scores, exact.scores, rtol=0.05)
    assert len(np.unique(rough.predicted_logits)) > 200  # bfloat16's eight bits would make them fewer


def test_it_is_an_option_of_a_model_and_stands_on_its_card():
    cards = [load_source(parse(f"s=shapes{option}")).card for option in ("", ",precision=bfloat16")]
    assert [card.precision for card in cards] == [model_pb2.PRECISION_FLOAT32, model_pb2.PRECISION_BFLOAT16]
    assert cards[0].digest != cards[1].digest
    with pytest.raises(ModelUnavailable, match="no precision 'int8'; allowed: float32, bfloat16"):
        parse("s=shapes,precision=int8")
