"""Read a Keras model as a graph, and cut it at the tensors that every path from input to output passes.

Works for Keras 3 and Keras 2 (the tf_keras package): both record, for each tensor, the operation that computed it.
Does not depend on what a layer computes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import keras

Layer = Any
"""A layer, an operation or a model of Keras."""
Tensor = Any
"""A symbolic tensor of Keras."""

GENERATIONS: Final = ("keras", "tf_keras")
"""The packages of Keras."""


class UnsupportedLayer(ValueError):
    """A layer or structure that cannot be explained exactly."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of a graph between two consecutive tensors that every path passes."""

    start: Tensor
    end: Tensor
    tensors: tuple[Tensor, ...]
    """The tensors that are computed, in topological order; the last one is `end`."""

    @property
    def operations(self) -> list[Layer]:
        """The operations that compute the tensors, each once."""
        return list({id(operation): operation for operation in map(_operation, self.tensors)}.values())

    @property
    def single(self) -> Layer | None:
        """The operation of a segment that has only one, which takes `start` alone; else None."""
        inputs = _inputs(self.end)
        return _operation(self.end) if len(self.tensors) == 1 and len(inputs) == 1 else None

    def read_arguments(self) -> list[Any]:
        """Return the arguments of the last operation that are not tensors, positional ones first."""
        args, kwargs = _arguments(self.end)
        return [argument for argument in (*args, *kwargs.values()) if not hasattr(argument, "_keras_history")]

    def iter_calls(self) -> Iterator[tuple[Layer, list[int]]]:
        """Yield, for each tensor, the operation that computes it and the numbers of its inputs; 0 is `start`."""
        numbers = {_key(tensor): i for i, tensor in enumerate((self.start, *self.tensors))}
        return ((_operation(tensor), [numbers[_key(source)] for source in _inputs(tensor)]) for tensor in self.tensors)

    @property
    def training_operation(self) -> str:
        """The name of an operation that is in training mode even at inference; empty without one.

        Keras 2 keeps training=True of a call, Keras 3 overrides it.
        """
        of_keras_2 = [tensor for tensor in self.tensors if _package(_operation(tensor)) is not keras]
        return next(
            (_operation(tensor).name for tensor in of_keras_2 if _arguments(tensor)[1].get("training") is True), ""
        )

    def build_function(self) -> Callable[[Any], Any]:
        """Return a function that computes `end` from `start` by the Keras layers, at inference."""
        model = _package(_operation(self.end)).Model(self.start, self.end)
        return lambda x: model(x, training=False)

    def describe(self) -> str:
        """Describe all but the weights that determines the values: operations, configurations, calls."""
        return "; ".join(
            f"{kind_of(operation)} {inputs} {_describe(_arguments(tensor))} {_describe(operation.get_config())}"
            for tensor, (operation, inputs) in zip(self.tensors, self.iter_calls(), strict=True)
        )


def split_into_segments(model: Layer, output: str | None = None) -> list[Segment]:
    """Cut a model into segments, from its input to its output or to the one that is named `output`.

    Raises UnsupportedLayer for a model that is no graph of layers, was never built, or takes several inputs.
    """
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise UnsupportedLayer(
            f"model {model.name!r} ({type(model).__name__}) is no graph of layers: it is subclassed, or was never "
            "built; build it from a keras.Input and save it again"
        )
    source, end = _single_input(model), _output(model, output)
    order = _ancestors(end)
    positions = {_key(tensor): i for i, tensor in enumerate(order)}
    for tensor in order:
        if not _inputs(tensor) and _key(tensor) != _key(source):
            raise UnsupportedLayer(f"{_operation(tensor).name!r} takes nothing of the model's input {source.name!r}")
    segments, start, reach = [], 0, 0
    last_use = [0] * len(order)
    for i, tensor in enumerate(order):
        for used in _inputs(tensor):
            position = positions[_key(used)]
            last_use[position] = max(last_use[position], i)
    for i in range(1, len(order)):
        reach = max(reach, last_use[i - 1])
        if reach <= i:  # no earlier tensor is used after this one
            segments.append(Segment(order[start], order[i], tuple(order[start + 1 : i + 1])))
            start = i
    return segments


def read_input_shape(model: Layer, size: tuple[int, int] | None = None) -> tuple[int, int, int]:
    """Return the (height, width, channels) of a model's input, with `size` where the model takes any.

    Raises UnsupportedLayer for an input that is no image, or a size that does not fit.
    """
    shape = tuple(_single_input(model).shape[1:])
    if len(shape) != 3 or shape[-1] not in {1, 3}:
        raise UnsupportedLayer(
            f"model {model.name!r} takes {shape}; an image (height, width, channels) of 3 channels, or 1, is needed: "
            "build it with such an Input, behind which a Reshape may stand, set its weights, and save it again"
        )
    *sides, channels = shape
    if size is None and None in sides:
        raise UnsupportedLayer(f"model {model.name!r} takes images of any size; say which by size=HEIGHTxWIDTH")
    if size is not None and any(side not in {None, given} for side, given in zip(sides, size, strict=True)):
        raise UnsupportedLayer(
            f"model {model.name!r} takes images of {sides[0]}×{sides[1]}, not of {size[0]}×{size[1]}"
        )
    height, width = size or sides
    return height, width, channels


def is_model(operation: Layer) -> bool:
    """Return True for a model, which may be nested in another one."""
    return isinstance(operation, tuple(sys.modules[name].Model for name in GENERATIONS if name in sys.modules))


def kind_of(operation: Layer) -> str:
    """Return the Keras class of an operation, or the name of the TensorFlow function that a Keras 2 layer calls."""
    symbol = getattr(operation, "symbol", None)
    return symbol if isinstance(symbol, str) else type(operation).__name__


def is_keras_own(operation: Layer) -> bool:
    """Return True for a class of Keras itself; a subclass may compute something else."""
    return type(operation).__module__.partition(".")[0] in GENERATIONS


def _single_input(model: Layer) -> Tensor:
    if len(model.inputs) != 1:
        names = ", ".join(repr(tensor.name) for tensor in model.inputs)
        raise UnsupportedLayer(
            f"model {model.name!r} takes {len(model.inputs)} inputs ({names}); one that takes an image alone is needed"
        )
    return model.inputs[0]


def _output(model: Layer, name: str | None) -> Tensor:
    names = list(getattr(model, "output_names", ["output"]))  # a Sequential has one, without a name
    if name is None and len(names) > 1:
        raise UnsupportedLayer(
            f"model {model.name!r} has {len(names)} outputs; choose one by output=, of {', '.join(names)}"
        )
    if name is not None and name not in names:
        raise UnsupportedLayer(f"model {model.name!r} has no output {name!r}; allowed: {', '.join(names)}")
    return model.outputs[0 if name is None else names.index(name)]


def _ancestors(end: Tensor) -> list[Tensor]:
    """Return all tensors that `end` depends on, in topological order; `end` is the last."""
    order: list[Tensor] = []
    seen = set()
    stack = [(end, False)]
    while stack:
        tensor, is_done = stack.pop()
        if is_done:
            order.append(tensor)
        elif _key(tensor) not in seen:
            seen.add(_key(tensor))
            stack.append((tensor, True))
            stack += [(source, False) for source in _inputs(tensor)]
    return order


def _operation(tensor: Tensor) -> Layer:
    return tensor._keras_history[0]  # noqa: SLF001 - where both generations record a tensor's origin


def _key(tensor: Tensor) -> tuple[int, int, int]:
    operation, node, index = tensor._keras_history  # noqa: SLF001
    return id(operation), node, index


def _node(tensor: Tensor) -> Any:
    operation, node, _ = tensor._keras_history  # noqa: SLF001
    return operation._inbound_nodes[node]  # noqa: SLF001


def _inputs(tensor: Tensor) -> list[Tensor]:
    node = _node(tensor)
    return list(node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors)


def _arguments(tensor: Tensor) -> tuple[Any, Any]:
    node = _node(tensor)
    if hasattr(node, "call_args"):
        return node.call_args, node.call_kwargs
    return node.arguments.args, node.arguments.kwargs


def _describe(value: Any) -> str:
    """Describe a call's arguments or a configuration by a text that is the same in every process."""
    if hasattr(value, "_keras_history"):
        return "tensor"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_describe(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_describe, value))}]"
    if hasattr(value, "__array__"):
        array = value.__array__()
        return f"{array.dtype}{array.shape}{array.tolist()}"
    return repr(value)


def _package(operation: Layer) -> Any:
    """Return the Keras package that an operation, or a base class of it, belongs to."""
    if any(base.__module__.partition(".")[0] == "tf_keras" for base in type(operation).__mro__):
        return sys.modules["tf_keras"]
    return keras
