"""Rules that convert a Keras layer to operations with a written backward pass.

Every rule serves both generations of Keras, whose layers have the same options except for a few names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from convlens.worker.engine import ops
from convlens.worker.engine.graph import GENERATIONS, Layer, UnsupportedLayer, is_keras_own, kind_of
from convlens.worker.engine.kinds import TRAINING_ONLY


class NoRule(Exception):
    """A layer, or a combination of its options, that no rule covers."""


def convert_layer(layer: Layer | None) -> list[ops.Op]:
    """Convert a layer by its rule. Raises NoRule."""
    rules = RULES if hasattr(layer, "weights") else OPERATIONS
    rule = rules.get(kind_of(layer)) if is_keras_own(layer) else None
    if rule is None:
        raise NoRule
    return rule(layer)


def _weight(variable: Any, default: np.ndarray[Any, Any] | None = None) -> ops.Weights:
    return np.asarray(default if variable is None else variable, np.float32)


def _require(layer: Layer, **options: object) -> None:
    """Raise NoRule unless the layer has these options, which the rule is written for."""
    if any(getattr(layer, option) != value for option, value in options.items()):
        raise NoRule


def _activation(layer: Layer) -> list[ops.Op]:
    """Convert the activation of a layer, which may be a function, a layer, or None."""
    activation = layer.activation
    if hasattr(activation, "get_config") and hasattr(activation, "weights"):
        try:
            return convert_layer(activation)
        except NoRule:
            if activation.weights or kind_of(activation) == "PReLU":
                raise UnsupportedLayer(
                    f"layer {layer.name!r}: its activation {kind_of(activation)} has weights, which Keras does not "
                    "store there; make it a layer of its own"
                ) from None
            return [ops.Taped(activation, f"{kind_of(activation)} {activation.get_config()}", hidden=[layer.name])]
    name = "linear" if activation is None else getattr(activation, "__name__", "")
    if activation is not None and activation not in _own_activations(name):
        raise NoRule  # a user's function, which may have the name of one of Keras'
    return ACTIVATIONS[name]() if name in ACTIVATIONS else [ops.Taped(activation, name, hidden=[layer.name])]


def is_linear(activation: Any) -> bool:
    """Return True for no activation, and for Keras' linear one."""
    return activation is None or activation in _own_activations("linear")


def _own_activations(name: str) -> list[Any]:
    """Return Keras' activation of a name, of each generation that is imported."""
    packages = [sys.modules[name] for name in GENERATIONS if name in sys.modules]
    return [package.activations.__dict__[name] for package in packages if name in package.activations.__dict__]


def _convolution(layer: Layer) -> list[ops.Op]:
    _require(layer, dilation_rate=(1, 1), groups=1)
    kernel = _weight(layer.kernel)
    bias = _weight(layer.bias, np.zeros(kernel.shape[-1]))
    return [ops.Convolution(kernel, bias, tuple(layer.strides), layer.padding.upper()), *_activation(layer)]


def _dense(layer: Layer) -> list[ops.Op]:
    kernel = _weight(layer.kernel)
    return [ops.Dense(kernel, _weight(layer.bias, np.zeros(kernel.shape[-1]))), *_activation(layer)]


def _pool(kind: Callable[..., ops.Op]) -> Callable[[Layer], list[ops.Op]]:
    def rule(layer: Layer) -> list[ops.Op]:
        return [kind(tuple(layer.pool_size), tuple(layer.strides), layer.padding.upper())]

    return rule


def _global_pool(kind: Callable[..., ops.Op]) -> Callable[[Layer], list[ops.Op]]:
    def rule(layer: Layer) -> list[ops.Op]:
        return [kind(layer.keepdims)]

    return rule


def _batch_normalization(layer: Layer) -> list[ops.Op]:
    rank = len(layer.input_spec.axes) and layer.input_spec.ndim
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in {-1, (rank or 0) - 1}:
        raise NoRule
    mean, variance = _weight(layer.moving_mean), _weight(layer.moving_variance)
    scale = _weight(layer.gamma, np.ones_like(mean)) / np.sqrt(variance + np.float32(layer.epsilon))
    return [ops.Affine(scale, _weight(layer.beta, np.zeros_like(mean)) - mean * scale)]


def _relu(layer: Layer) -> list[ops.Op]:
    _require(layer, max_value=None, threshold=0.0)
    slope = float(layer.negative_slope)
    return [ops.LeakyRelu(slope) if slope else ops.Relu()]


def _leaky_relu(layer: Layer) -> list[ops.Op]:
    slope = layer.negative_slope if hasattr(layer, "negative_slope") else layer.alpha  # Keras 3, Keras 2
    return [ops.LeakyRelu(float(slope))]


def _reshape(layer: Layer) -> list[ops.Op]:
    return [ops.Reshape(tuple(layer.target_shape))]


def _flatten(_: Layer) -> list[ops.Op]:
    return [ops.Reshape((-1,))]


def _rescaling(layer: Layer) -> list[ops.Op]:
    return [ops.Affine(_weight(layer.scale), _weight(layer.offset))]


def _zero_padding(layer: Layer) -> list[ops.Op]:
    (top, bottom), (left, right) = layer.padding
    return [ops.Pad(((top, bottom), (left, right)))]


ACTIVATIONS: Final[dict[str, Callable[[], list[ops.Op]]]] = {
    "linear": lambda: [ops.Identity()],
    "relu": lambda: [ops.Relu()],
    "leaky_relu": lambda: [ops.LeakyRelu(0.2)],
    "softmax": lambda: [ops.Probability("softmax")],
    "sigmoid": lambda: [ops.Probability("sigmoid")],
}
"""By the Keras name of an activation."""

RULES: Final[dict[str, Callable[[Layer], list[ops.Op]]]] = {
    "Conv2D": _convolution,
    "Dense": _dense,
    "MaxPooling2D": _pool(ops.MaxPool),
    "AveragePooling2D": _pool(ops.AveragePool),
    "GlobalAveragePooling2D": _global_pool(ops.GlobalAverage),
    "GlobalMaxPooling2D": _global_pool(ops.GlobalMax),
    "BatchNormalization": _batch_normalization,
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "nn.relu": lambda _: [ops.Relu()],
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Rescaling": _rescaling,
    "ZeroPadding2D": _zero_padding,
    **dict.fromkeys(TRAINING_ONLY, lambda _: [ops.Identity()]),
}
"""By the Keras class of a layer."""

OPERATIONS: Final[dict[str, Callable[[Layer], list[ops.Op]]]] = {
    "Relu": lambda _: [ops.Relu()],
}
"""By the class of a Keras 3 operation; kept apart, since some have a layer's name."""

PROBABILITIES: Final = {
    **dict.fromkeys(("Softmax", "nn.softmax", "nn.softmax_v2", "math.softmax", "compat.v1.nn.softmax"), "softmax"),
    **dict.fromkeys(("Sigmoid", "nn.sigmoid", "math.sigmoid"), "sigmoid"),
}
"""Layers, operations and functions that compute probabilities, and by which function."""


def convert_probability(layer: Layer, rank: int, arguments: list[Any]) -> ops.Op | None:
    """Convert a softmax or sigmoid over the last axis; return None for any other layer, operation or function.

    `rank` is that of its input, `arguments` are those of the call that are not tensors.
    """
    kind = PROBABILITIES.get(kind_of(layer)) if is_keras_own(layer) else None
    options = [getattr(layer, "axis", None), *arguments]
    axes = [axis for option in options for axis in (option if isinstance(option, list | tuple) else [option])]
    is_last = all(axis in {-1, rank - 1} for axis in axes if isinstance(axis, int) and not isinstance(axis, bool))
    return ops.Probability(kind) if kind and is_last else None
