"""The rules: what a Keras layer computes, as operations that have a backward pass of their own.

Every rule is written for both generations of Keras, whose layers have the same options but for a few names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from convlens.worker.engine import ops
from convlens.worker.engine.graph import GENERATIONS, Layer, UnsupportedLayer, is_keras_own, kind_of
from convlens.worker.engine.kinds import AT_TRAINING_ALONE


class NoRule(Exception):
    """A layer, or options of one, that no rule here is written for."""


def written(layer: Layer | None) -> list[ops.Op]:
    """A layer's operations by its rule. Raises NoRule."""
    rules = RULES if hasattr(layer, "weights") else OPERATIONS
    rule = rules.get(kind_of(layer)) if is_keras_own(layer) else None
    if rule is None:
        raise NoRule
    return rule(layer)


def _weight(variable: Any, default: np.ndarray[Any, Any] | None = None) -> ops.Weights:
    return np.asarray(default if variable is None else variable, np.float32)


def _only(layer: Layer, **wanted: object) -> None:
    """NoRule unless the layer's options are the ones the rule is written for."""
    if any(getattr(layer, option) != value for option, value in wanted.items()):
        raise NoRule


def _activation(layer: Layer) -> list[ops.Op]:
    """The activation of a layer, which may be a function, a layer itself, or none."""
    activation = layer.activation
    if hasattr(activation, "get_config") and hasattr(activation, "weights"):
        try:
            return written(activation)
        except NoRule:
            if activation.weights or kind_of(activation) == "PReLU":
                raise UnsupportedLayer(
                    f"layer {layer.name!r}: its activation {kind_of(activation)} has weights, which Keras does not "
                    "store there; make it a layer of its own"
                ) from None
            return [ops.Taped(activation, f"{kind_of(activation)} {activation.get_config()}", hidden=[layer.name])]
    name = "linear" if activation is None else getattr(activation, "__name__", "")
    if activation is not None and activation not in _own_activations(name):
        raise NoRule  # a function of somebody's own, whatever it is called
    return ACTIVATIONS[name]() if name in ACTIVATIONS else [ops.Taped(activation, name, hidden=[layer.name])]


def is_linear(activation: Any) -> bool:
    """True for no activation, and for Keras' own that is none."""
    return activation is None or activation in _own_activations("linear")


def _own_activations(name: str) -> list[Any]:
    """Keras' own activation of a name, in the generations that are loaded."""
    packages = [sys.modules[it] for it in GENERATIONS if it in sys.modules]
    return [it.activations.__dict__[name] for it in packages if name in it.activations.__dict__]


def _convolution(layer: Layer) -> list[ops.Op]:
    _only(layer, dilation_rate=(1, 1), groups=1)
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
    _only(layer, max_value=None, threshold=0.0)
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
"""One row an activation, by its Keras name."""

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
    **dict.fromkeys(AT_TRAINING_ALONE, lambda _: [ops.Identity()]),
}
"""One row a class of Keras."""

OPERATIONS: Final[dict[str, Callable[[Layer], list[ops.Op]]]] = {
    "Relu": lambda _: [ops.Relu()],
}
"""The same of Keras 3's operations, some of which are called as layers are."""

PROBABILITIES: Final = {
    **dict.fromkeys(("Softmax", "nn.softmax", "nn.softmax_v2", "math.softmax", "compat.v1.nn.softmax"), "softmax"),
    **dict.fromkeys(("Sigmoid", "nn.sigmoid", "math.sigmoid"), "sigmoid"),
}
"""Layers, operations and functions that make probabilities, and which."""


def probability(layer: Layer, rank: int, arguments: list[Any]) -> ops.Op | None:
    """A layer, operation or function that makes probabilities of its input's last axis; None for any other.

    `rank` is that of its input, `arguments` what it is called with beside it.
    """
    kind = PROBABILITIES.get(kind_of(layer)) if is_keras_own(layer) else None
    given = [getattr(layer, "axis", None), *arguments]
    axes = [it for value in given for it in (value if isinstance(value, list | tuple) else [value])]
    is_last = all(it in {-1, rank - 1} for it in axes if isinstance(it, int) and not isinstance(it, bool))
    return ops.Probability(kind) if kind and is_last else None
