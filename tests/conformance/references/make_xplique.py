"""Make xplique.npz, in an environment of xplique==2.0.2 and tensorflow==2.20.0: python make_xplique.py."""

from pathlib import Path

import keras
import network
import numpy as np
import tensorflow as tf
from keras import layers as L
from xplique.attributions import DeconvNet, GradientInput, GuidedBackprop, Saliency

inputs = x = keras.Input((network.SIZE, network.SIZE, 3))
for block, (count, channels) in enumerate(network.BLOCKS, start=1):
    for i in range(1, count + 1):
        x = L.Conv2D(channels, 3, padding="same", activation="relu", name=f"block{block}_conv{i}")(x)
    x = L.MaxPooling2D(name=f"block{block}_pool")(x)
x = L.Flatten()(x)
for name in ("fc1", "fc2", "predictions"):
    units = network.weights()[name][1].size
    x = L.Dense(units, activation=None if name == "predictions" else "relu", name=name)(x)
model = keras.Model(inputs, x)
for name, pair in network.weights().items():
    model.get_layer(name).set_weights(pair)
images, targets = network.images(), tf.one_hot(network.TARGETS, network.UNITS)


def explain(method: type, **options: object) -> np.ndarray:
    """Return Xplique's maps without a last axis of one. (Its class activation maps are always resized.)"""
    return np.asarray(method(model, **options)(images, targets)).squeeze()


np.savez_compressed(
    Path(__file__).with_name("xplique.npz"),
    digest=network.digest(),
    logits=model.predict(images, verbose=0),
    vanilla=explain(Saliency),
    guided=explain(GuidedBackprop, reducer=None),
    deconvnet=explain(DeconvNet, reducer=None),
    gradient_x_input=explain(GradientInput, reducer=None),
)
