"""Xplique, which pins an older TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import keras
import numpy as np
import protocol
import tensorflow as tf
from xplique.attributions import GradCAM, GuidedBackprop, Saliency

model = keras.applications.VGG16(weights=None, classifier_activation=None)
for layer in model.layers:
    if layer.weights:
        layer.set_weights([protocol.weights()[f"{layer.name}/{part}"] for part in ("kernel", "bias")])
cut = keras.Model(model.input, model.get_layer(protocol.LAYER).output)
x = protocol.images()
size = len(x)
targets = tf.one_hot(np.argmax(model.predict(x, batch_size=size, verbose=0), -1), 1000)
plain, guided = Saliency(model, batch_size=size), GuidedBackprop(model, batch_size=size)
cam = GradCAM(model, batch_size=size, conv_layer=protocol.CAM)


def saliency():
    """Return the maps, which Xplique reduces to the largest absolute value of the channels."""
    return np.asarray(plain(x, targets))[..., 0]


protocol.serve(
    {
        "Xplique: saliency": saliency,
        "Xplique: the article's four": lambda: [
            saliency(), np.asarray(guided(x, targets)), np.asarray(cam(x, targets)),
            cut.predict(x, batch_size=size, verbose=0)[..., :5],
        ][0],
    }
)  # fmt: skip
