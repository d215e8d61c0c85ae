"""Which model the calls of convlens.client.keras_vis use; their values: tests/integration/service/test_keras_vis.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from convlens.client import Client
from convlens.client.keras_vis import Model, visualize_cam, visualize_saliency
from convlens.client.testing import serve, vgg16


@pytest.mark.parametrize("call", [visualize_cam, visualize_saliency])
def test_a_model_without_a_name_is_the_servers_default(call):
    synthetic = dataclasses.replace(vgg16("a"), synthetic=True)
    server = serve([synthetic, vgg16("b"), vgg16("c")])
    with server as target, Client(target) as client:
        model = Model(client)
        assert call(model, -1, 3, np.zeros((8, 8, 3), np.uint8)).shape == (224, 224)
        assert model.card.name == "b"
        assert server.requests[-1].message.spec.model == "b"
