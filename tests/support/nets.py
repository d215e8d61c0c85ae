"""Small seeded networks of every topology that the engine supports, and reference gradients by GradientTape."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

SIZE = 24


def _fused(x):
    x = L.Conv2D(6, 3, padding="same", activation="relu", name="c1")(x)
    x = L.Conv2D(6, 3, padding="same", activation="relu", name="c2")(x)
    x = L.MaxPooling2D(name="p1")(x)
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="c3")(x)
    x = L.MaxPooling2D(name="p2")(x)
    x = L.Flatten(name="flat")(x)
    x = L.Dense(16, activation="relu", name="d1")(x)
    return L.Dense(5, activation="softmax", name="out")(x)


def _separate(x):
    x = L.Conv2D(6, 3, padding="same", use_bias=False, name="c1")(x)
    x = L.BatchNormalization(name="bn")(x)
    x = L.Activation("relu", name="a1")(x)
    x = L.AveragePooling2D(2, name="p1")(x)
    x = L.Conv2D(8, 3, padding="same", name="c3")(x)
    x = L.ReLU(name="a2")(x)
    x = L.GlobalAveragePooling2D(name="gap")(x)
    x = L.Dropout(0.5, name="drop")(x)
    x = L.Dense(5, name="logits")(x)
    return L.Softmax(name="out")(x)


def _edges(x):
    x = L.Rescaling(1 / 127.5, offset=-1, name="scale")(x)
    x = L.ZeroPadding2D(((1, 2), (0, 1)), name="pad")(x)
    x = L.Conv2D(6, 3, strides=2, padding="same", name="c1")(x)
    x = L.LeakyReLU(negative_slope=0.1, name="a1")(x)
    x = L.Conv2D(8, (3, 2), padding="valid", activation="relu", name="c3")(x)
    x = L.MaxPooling2D(3, strides=2, padding="same", name="p1")(x)
    x = L.GlobalMaxPooling2D(name="gmp")(x)
    x = L.Reshape((2, 4), name="fold")(x)
    x = L.Flatten(name="flat")(x)
    return L.Dense(5, name="out")(x)


def _nested(x):
    inner = keras.Input((SIZE, SIZE, 3))
    y = L.Conv2D(6, 3, padding="same", activation="relu", name="c1")(inner)
    y = L.MaxPooling2D(name="p1")(y)
    y = L.Conv2D(8, 3, padding="same", activation="relu", name="c3")(y)
    x = keras.Model(inner, y, name="backbone")(x)
    x = L.GlobalAveragePooling2D(name="gap")(x)
    x = L.BatchNormalization(name="bn")(x)
    x = L.Dropout(0.3, name="drop")(x)
    return L.Dense(1, activation="sigmoid", name="out")(x)


def _uneven(x):
    x = L.Conv2D(4, (5, 4), padding="valid", name="c1")(x)
    x = L.LeakyReLU(negative_slope=0.2, name="a1")(x)
    x = L.MaxPooling2D((2, 3), strides=(2, 4), padding="same", name="p1")(x)
    x = L.Conv2D(4, (3, 2), padding="same", activation="relu", name="c2")(x)
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="c3")(x)
    x = L.MaxPooling2D(2, strides=3, name="p2")(x)
    x = L.Flatten(name="flat")(x)
    return L.Dense(5, name="out")(x)


BUILDERS = {"fused": _fused, "separate": _separate, "edges": _edges, "nested": _nested, "uneven": _uneven}


def build(name: str, seed: int = 3) -> keras.Model:
    """Build a network; none of its seeded weights, biases and statistics is trivial."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, BUILDERS[name](inputs))
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.path.endswith(("bias", "beta", "moving_mean")):
            variable.assign(rng.normal(0, 0.3, variable.shape))
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(rng.uniform(0.5, 2, variable.shape))
    return model


def images(count: int, seed: int = 0) -> np.ndarray:
    """Seeded RGB noise, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def taped(model: keras.Model, x: np.ndarray, unit: int, layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ∂logit/∂input, the layer's output and ∂logit/∂(that output), by GradientTape and Keras alone."""
    flat = list(_layers(model))
    outputs = {}
    tensor = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tensor)
        value = tensor
        for current in flat:
            if current is flat[-1] and isinstance(current, L.Softmax):
                break
            if current is flat[-1] and isinstance(current, L.Dense):
                value = value @ current.kernel + current.bias
                break
            value = current(value, training=False)
            outputs[current.name] = value
            if current.name == layer:
                tape.watch(value)
        score = tf.reduce_sum(scores(value)[:, unit])
    return tape.gradient(score, tensor).numpy(), outputs[layer].numpy(), tape.gradient(score, outputs[layer]).numpy()


def ruled(model: keras.Model, x: np.ndarray, unit: int, rule: str) -> np.ndarray:
    """Return ∂logit/∂input by GradientTape, with the backward pass of every rectifier replaced by `rule`."""

    def rectifier(slope):
        @tf.custom_gradient
        def rectified(value):
            def backward(dy):
                gate = tf.cast(value > 0, tf.float32)
                if rule == "vanilla":
                    return dy * (gate + slope * (1 - gate))
                return tf.nn.relu(dy) * (gate if rule == "guided" else 1.0)

            return tf.nn.leaky_relu(value, slope), backward

        return rectified

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    *flat, last = _layers(copy)
    value = tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        for layer in flat:
            if isinstance(layer, L.ReLU | L.LeakyReLU):
                value = rectifier(float(layer.negative_slope))(value)
                continue
            if getattr(layer, "activation", None) is keras.activations.relu:
                layer.activation = rectifier(0.0)
            value = layer(value, training=False)
        if isinstance(last, L.Dense):
            value = value @ last.kernel + last.bias
        score = tf.reduce_sum(scores(value)[:, unit])
    return tape.gradient(score, tensor).numpy()


def scores(logits: tf.Tensor) -> tf.Tensor:
    """The logits (N, units); −z and z for a network of one unit, which ends in a sigmoid."""
    return tf.concat([-logits, logits], -1) if logits.shape[-1] == 1 else logits


def _layers(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif not isinstance(layer, L.InputLayer):
            yield layer
