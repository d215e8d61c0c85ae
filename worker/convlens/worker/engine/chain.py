"""Walks a Keras model and gives the chain of operations it is: layer by layer, nested models included.

What has no rule here is refused by its name: a wrong map is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np

from convlens.worker.engine import ops

Layer = Any


class UnsupportedLayer(ValueError):
    """A layer, activation or structure that has no exact rule."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of the chain."""

    op: ops.Op
    layer: str | None
    """The Keras layer whose output this is; None for an inner operation of a layer."""
    kind: str
    """The Keras class of the layer."""


def walk(model: Layer) -> list[Step]:
    """The steps of `model`, in the order the data passes. Raises UnsupportedLayer naming what has no rule."""
    steps: list[Step] = []
    for layer in _flat(model):
        rule = RULES.get(type(layer))
        if rule is None:
            raise UnsupportedLayer(
                f"layer {layer.name!r} ({type(layer).__name__}) has no rule; supported are "
                f"{', '.join(sorted(kind.__name__ for kind in RULES))}"
            )
        found = rule(layer)
        steps += [Step(op, layer.name if op is found[-1] else None, type(layer).__name__) for op in found]
    names = [step.layer for step in steps if step.layer]
    for name in names:
        if names.count(name) > 1:
            raise UnsupportedLayer(f"layer name {name!r} stands twice; layers must have names of their own")
    for step in steps[:-1]:
        if isinstance(step.op, ops.Probability):
            raise UnsupportedLayer(f"layer {step.layer!r}: {step.op.kind} has a rule only at the very end")
    return steps


def _flat(model: Layer) -> Iterator[Layer]:
    """The layers of a chain, nested models opened."""
    layers = model.layers if isinstance(model, keras.Sequential) else _functional_chain(model)
    for layer in layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if isinstance(layer, keras.Model):
            yield from _flat(layer)
        else:
            yield layer


def _functional_chain(model: Layer) -> list[Layer]:
    """The layers of a functional model from input to output, refusing whatever is not one chain."""
    if not isinstance(model, keras.models.Model) or not hasattr(model, "operations"):
        raise UnsupportedLayer(
            f"model {model.name!r} ({type(model).__name__}) is subclassed; only chains of layers are"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UnsupportedLayer(f"model {model.name!r} has {len(model.inputs)} inputs, {len(model.outputs)} outputs")
    chain: list[Layer] = []
    tensor = model.outputs[0]
    while tensor is not model.inputs[0]:
        operation, node, _ = tensor._keras_history  # noqa: SLF001 - how Keras tells where a tensor came from
        inputs = operation._inbound_nodes[node].input_tensors  # noqa: SLF001
        if len(inputs) != 1:
            raise UnsupportedLayer(
                f"layer {operation.name!r} ({type(operation).__name__}) joins {len(inputs)} branches"
            )
        chain.insert(0, operation)
        tensor = inputs[0]
    aside = [layer.name for layer in model.layers if layer not in chain and not _is_input(layer)]
    if aside:
        raise UnsupportedLayer(f"layers {', '.join(map(repr, aside))} stand aside of the chain; branches have no rule")
    return chain


def _is_input(layer: Layer) -> bool:
    return isinstance(layer, keras.layers.InputLayer)


def _weight(variable: Any, default: np.ndarray[Any, Any] | None = None) -> ops.Weights:
    return np.asarray(default if variable is None else variable, np.float32)


def _only(layer: Layer, **wanted: object) -> None:
    """UnsupportedLayer unless the layer's options are the ones the rule is written for."""
    for option, value in wanted.items():
        if getattr(layer, option) != value:
            raise UnsupportedLayer(
                f"layer {layer.name!r} ({type(layer).__name__}) with {option}={getattr(layer, option)!r} has no rule; "
                f"{option}={value!r} has"
            )


def _activation(layer: Layer) -> list[ops.Op]:
    name = getattr(layer.activation, "__name__", str(layer.activation))
    if name not in ACTIVATIONS or layer.activation is not getattr(keras.activations, name):
        raise UnsupportedLayer(
            f"layer {layer.name!r} ({type(layer).__name__}) has activation {name!r}, which has no rule; "
            f"supported are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]()


def _convolution(layer: Layer) -> list[ops.Op]:
    _only(layer, data_format="channels_last", dilation_rate=(1, 1), groups=1)
    kernel = _weight(layer.kernel)
    bias = _weight(layer.bias, np.zeros(kernel.shape[-1]))
    return [ops.Convolution(kernel, bias, tuple(layer.strides), layer.padding.upper()), *_activation(layer)]


def _dense(layer: Layer) -> list[ops.Op]:
    if layer.input_spec is not None and len(layer.kernel.shape) != 2:
        raise UnsupportedLayer(f"layer {layer.name!r} (Dense) has a kernel of {len(layer.kernel.shape)} axes")
    kernel = _weight(layer.kernel)
    return [ops.Dense(kernel, _weight(layer.bias, np.zeros(kernel.shape[-1]))), *_activation(layer)]


def _pool(kind: Callable[..., ops.Op]) -> Callable[[Layer], list[ops.Op]]:
    def rule(layer: Layer) -> list[ops.Op]:
        _only(layer, data_format="channels_last")
        return [kind(tuple(layer.pool_size), tuple(layer.strides), layer.padding.upper())]

    return rule


def _global_pool(kind: Callable[..., ops.Op]) -> Callable[[Layer], list[ops.Op]]:
    def rule(layer: Layer) -> list[ops.Op]:
        _only(layer, data_format="channels_last")
        return [kind(layer.keepdims)]

    return rule


def _batch_normalization(layer: Layer) -> list[ops.Op]:
    rank = len(layer.input_spec.axes) and layer.input_spec.ndim
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in {-1, (rank or 0) - 1}:
        raise UnsupportedLayer(f"layer {layer.name!r} (BatchNormalization) along axis {axis} has no rule; the last has")
    mean, variance = _weight(layer.moving_mean), _weight(layer.moving_variance)
    scale = _weight(layer.gamma, np.ones_like(mean)) / np.sqrt(variance + np.float32(layer.epsilon))
    return [ops.Affine(scale, _weight(layer.beta, np.zeros_like(mean)) - mean * scale)]


def _relu(layer: Layer) -> list[ops.Op]:
    _only(layer, max_value=None, threshold=0.0)
    slope = float(layer.negative_slope)
    return [ops.LeakyRelu(slope) if slope else ops.Relu()]


def _reshape(layer: Layer) -> list[ops.Op]:
    return [ops.Reshape(tuple(layer.target_shape))]


def _flatten(layer: Layer) -> list[ops.Op]:
    _only(layer, data_format="channels_last")
    return [ops.Reshape((-1,))]


def _rescaling(layer: Layer) -> list[ops.Op]:
    return [ops.Affine(_weight(layer.scale), _weight(layer.offset))]


def _zero_padding(layer: Layer) -> list[ops.Op]:
    _only(layer, data_format="channels_last")
    (top, bottom), (left, right) = layer.padding
    return [ops.Pad(((top, bottom), (left, right)))]


def _softmax(layer: Layer) -> list[ops.Op]:
    _only(layer, axis=-1)
    return [ops.Probability("softmax")]


ACTIVATIONS: Final[dict[str, Callable[[], list[ops.Op]]]] = {
    "linear": lambda: [ops.Identity()],
    "relu": lambda: [ops.Relu()],
    "leaky_relu": lambda: [ops.LeakyRelu(0.2)],
    "softmax": lambda: [ops.Probability("softmax")],
    "sigmoid": lambda: [ops.Probability("sigmoid")],
}
"""One row an activation, by its Keras name."""

RULES: Final[dict[type, Callable[[Layer], list[ops.Op]]]] = {
    keras.layers.Conv2D: _convolution,
    keras.layers.Dense: _dense,
    keras.layers.MaxPooling2D: _pool(ops.MaxPool),
    keras.layers.AveragePooling2D: _pool(ops.AveragePool),
    keras.layers.GlobalAveragePooling2D: _global_pool(ops.GlobalAverage),
    keras.layers.GlobalMaxPooling2D: _global_pool(ops.GlobalMax),
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Dropout: lambda _: [ops.Identity()],
    keras.layers.SpatialDropout2D: lambda _: [ops.Identity()],
    keras.layers.Activation: _activation,
    keras.layers.ReLU: _relu,
    keras.layers.LeakyReLU: lambda layer: [ops.LeakyRelu(float(layer.negative_slope))],
    keras.layers.Softmax: _softmax,
    keras.layers.Flatten: _flatten,
    keras.layers.Reshape: _reshape,
    keras.layers.Rescaling: _rescaling,
    keras.layers.ZeroPadding2D: _zero_padding,
}
"""One row a layer, by its exact class: a subclass may compute something else."""
