"""Forward passes of Keras networks in NumPy and float64, layer by layer, independent of the engine under test."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import layers as L


def logits(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """The logits (N, units) before the last softmax or sigmoid; −z and z for one unit with a sigmoid."""
    value = np.asarray(x, np.float64)
    flat = list(_layers(model))
    for layer in flat:
        value = RULES[type(layer)](layer, value)
        activation = getattr(layer, "activation", None)
        if activation is not None and layer is not flat[-1]:
            value = np.maximum(value, 0) if activation is keras.activations.relu else value
    is_binary = value.shape[-1] == 1 and flat[-1].activation is keras.activations.sigmoid
    return np.concatenate([-value, value], -1) if is_binary else value


def directional(model: keras.Model, x: np.ndarray, unit: int, direction: np.ndarray, step: float = 1e-5) -> float:
    """The directional derivative of a unit's logit at one image, by central differences."""
    up, down = (logits(model, x[None] + sign * step * direction)[0, unit] for sign in (1, -1))
    return float((up - down) / (2 * step))


def _layers(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif not isinstance(layer, L.InputLayer):
            yield layer


def _weights(layer):
    return [np.asarray(weights, np.float64) for weights in layer.get_weights()]


def _windows(x: np.ndarray, size: tuple[int, int], strides: tuple[int, int], padding: str, fill: float) -> np.ndarray:
    """The windows of a convolution or pooling layer: (N, rows, columns, height, width, C)."""
    out = []
    edges = [(0, 0)]
    for length, window, stride in zip(x.shape[1:3], size, strides, strict=True):
        count = -(-length // stride) if padding == "same" else (length - window) // stride + 1
        extra = max(0, (count - 1) * stride + window - length) if padding == "same" else 0
        edges.append((extra // 2, extra - extra // 2))
        out.append(count)
    x = np.pad(x, [*edges, (0, 0)], constant_values=fill)
    rows = [
        [x[:, r * strides[0] :, c * strides[1] :][:, : size[0], : size[1]] for c in range(out[1])]
        for r in range(out[0])
    ]
    return np.stack([np.stack(row, 1) for row in rows], 1)


def _convolution(layer, x):
    kernel, *bias = _weights(layer)
    windows = _windows(x, layer.kernel_size, layer.strides, layer.padding, 0.0)
    return np.einsum("nrcijk,ijko->nrco", windows, kernel) + (bias[0] if bias else 0)


def _pool(reduce: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda layer, x: reduce(_windows(x, layer.pool_size, layer.strides, layer.padding, np.nan), (3, 4))


def _normalised(layer, x):
    gamma, beta, mean, variance = _weights(layer)
    return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta


RULES = {
    L.Conv2D: _convolution,
    L.Dense: lambda layer, x: x @ _weights(layer)[0] + _weights(layer)[1],
    L.MaxPooling2D: _pool(np.nanmax),
    L.AveragePooling2D: _pool(np.nanmean),
    L.GlobalAveragePooling2D: lambda _, x: x.mean((1, 2)),
    L.GlobalMaxPooling2D: lambda _, x: x.max((1, 2)),
    L.BatchNormalization: _normalised,
    L.Dropout: lambda _, x: x,
    L.Activation: lambda _, x: x,
    L.ReLU: lambda _, x: np.maximum(x, 0),
    L.LeakyReLU: lambda layer, x: np.where(x > 0, x, layer.negative_slope * x),
    L.Softmax: lambda _, x: x,
    L.Flatten: lambda _, x: x.reshape(len(x), -1),
    L.Reshape: lambda layer, x: x.reshape(len(x), *layer.target_shape),
    L.Rescaling: lambda layer, x: x * float(layer.scale) + float(layer.offset),
    L.ZeroPadding2D: lambda layer, x: np.pad(x, [(0, 0), *layer.padding, (0, 0)]),
}
