"""Lower precisions: maps stay close to float32, small gradients do not underflow, and an overflow raises an error."""

from __future__ import annotations

import nets
import numpy as np
import pytest

from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import Activation, GradCAM, Plan, Saliency
from convlens.worker.engine.precision import PRECISIONS

SIGNED = Saliency(reduction="none")
COSINES = {"float32": 1 - 1e-6, "tf32": 1 - 1e-5, "float16": 0.99, "bfloat16": 0.95}
"""The least cosine similarity, on images of noise, where rounding switches rectifiers and pools."""
PLAN = Plan((SIGNED, GradCAM("c3", signed=True), Activation("c3")), predictions=1)


def build_scaled(layer: str, factor: float):
    model = nets.build("fused")
    kernel, bias = model.get_layer(layer).get_weights()
    model.get_layer(layer).set_weights([kernel * np.float32(factor), bias])
    return model


def cosines(one, other):
    a, b = (map_.reshape(len(map_), -1).astype(np.float64) for map_ in (one, other))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", nets.BUILDERS)
def test_every_network_computes_in_every_precision(name, precision):
    model, x = nets.build(name), nets.images(3)
    exact = Network(model, "unit").run(x, PLAN)
    rough = Network(model, "unit", precision).run(x, PLAN, exact.targets)
    np.testing.assert_allclose(rough.scores, exact.scores, atol=0.04 * np.abs(exact.scores).max())
    for item, map_ in exact.maps.items():
        assert rough.maps[item].dtype == np.float32
        if name == "edges" and not isinstance(item, Activation):
            continue  # rounding may move its one global maximum, and the gradient with it
        assert np.median(cosines(rough.maps[item], map_)) > COSINES[precision]
        np.testing.assert_allclose(np.linalg.norm(rough.maps[item]), np.linalg.norm(map_), rtol=4e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_small_gradients_do_not_underflow(precision):
    model, x = build_scaled("out", 1e-4), nets.images(2)
    exact = Network(model, "none").run(x, PLAN)
    rough = Network(model, "none", precision).run(x, PLAN, exact.targets)
    assert np.abs(exact.maps[SIGNED]).max() < 1e-4
    assert np.median(cosines(rough.maps[SIGNED], exact.maps[SIGNED])) > COSINES[precision]


def test_float16_raises_overflow_error_where_bfloat16_does_not():
    model, x = build_scaled("c1", 1e4), nets.images(2)
    for plan in (PLAN, Plan((), predictions=3), Plan((Activation("c3"),))):
        with pytest.raises(OverflowError, match="exceed what float16 holds"):
            Network(model, "none", "float16").run(x, plan)
    rough = Network(model, "none", "bfloat16").run(x, PLAN)
    assert all(np.isfinite(map_).all() for map_ in rough.maps.values())


def test_tf32_equals_float32_without_a_gpu_but_has_its_own_digest():
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU rounds")
    model, x = nets.build("fused"), nets.images(2)
    networks = [Network(model, "none", precision) for precision in ("float32", "tf32")]
    exact, rough = (network.run(x, PLAN) for network in networks)
    for item, map_ in exact.maps.items():
        np.testing.assert_array_equal(rough.maps[item], map_)
    assert networks[0].digest != networks[1].digest
