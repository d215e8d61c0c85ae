"""Walks a Keras model and gives the chain of operations it is, nested models included.

A layer with a rule here is written out, with a backward pass of its own. Whatever else there is between two tensors
that every path passes, a layer or a region of several, is one taped step: Keras' own forward pass, TensorFlow's
gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from convlens.worker.engine import ops
from convlens.worker.engine.graph import (
    Layer,
    Segment,
    UnsupportedLayer,
    is_keras_own,
    is_model,
    kind_of,
    segments,
)
from convlens.worker.engine.kinds import KEEPS_RANGE, LINEAR
from convlens.worker.engine.rules import NoRule, is_linear, probability, written


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of the chain."""

    op: ops.Op
    layer: str | None
    """The Keras layer whose output this is, with #2, #3… for further uses; None for an inner operation of a layer."""
    kinds: tuple[str, ...]
    """The Keras classes of what it computes; the last one is that of the layer."""

    @property
    def kind(self) -> str:
        """The Keras class of the layer whose output this is."""
        return self.kinds[-1]

    @property
    def is_convolution(self) -> bool:
        """True where it ends a convolution's layer, or a region with one inside."""
        return any("Conv" in kind for kind in self.kinds)


def walk(model: Layer, output: str | None = None) -> list[Step]:
    """The steps of `model` to its output, or to the one named `output`, in the order the data passes.

    Raises UnsupportedLayer naming what cannot be explained.
    """
    uses: Counter[str] = Counter()
    steps = [step for segment in _flat(segments(model, output)) for step in _steps(segment, uses)]
    head = next((i for i in reversed(range(len(steps))) if not isinstance(steps[i].op, _SHAPES)), 0)
    return [step if i >= head else _without_probability(step) for i, step in enumerate(steps)]


def rescaling_layer(model: Layer, output: str | None = None) -> str:
    """The name of the layer by which a model brings pixels to its own range; empty for one that expects it done."""
    for segment in _flat(segments(model, output)):
        raw, found = {0}, []
        for number, (operation, inputs) in enumerate(segment.calls(), start=1):
            if raw.isdisjoint(inputs):
                continue
            if kind_of(operation) in KEEPS_RANGE:
                raw.add(number)
            elif own := _rescales(operation):
                found.append(own)
            else:
                return ""
        if found:
            return found[0]
    return ""


def _rescales(operation: Layer) -> str:
    """The name of what rescales pixels in an operation that takes them; empty for one with weights of its own."""
    if is_model(operation):
        return rescaling_layer(operation) if len(operation.inputs or ()) == len(operation.outputs or ()) == 1 else ""
    has_weights = bool(getattr(operation, "weights", ())) and kind_of(operation) != "Normalization"
    return "" if has_weights else str(operation.name)


_SHAPES: Final = (ops.Identity, ops.Reshape)
"""What may follow the probabilities at the end of a model."""


def _flat(found: list[Segment]) -> Iterator[Segment]:
    """The segments, nested models opened."""
    for segment in found:
        if segment.trains:
            raise UnsupportedLayer(
                f"layer {segment.trains!r} is called with training=True: what it gives changes from call to call"
            )
        inner = segment.single
        if inner is not None and is_model(inner) and len(inner.inputs or ()) == len(inner.outputs or ()) == 1:
            yield from _flat(segments(inner))
        else:
            yield segment


def _steps(segment: Segment, uses: Counter[str]) -> list[Step]:
    """The steps of a segment: its only layer's by its rule, or one that is taped."""
    for operation in segment.operations:
        _refuse(operation)
    last = segment.operations[-1]
    uses[last.name] += 1
    name = last.name if uses[last.name] == 1 else f"{last.name}#{uses[last.name]}"
    try:
        found = _written(segment)
    except NoRule:
        return [Step(_taped(segment), name, tuple(map(kind_of, _leaves(segment.operations))))]
    return [Step(op, name if op is found[-1] else None, (kind_of(last),)) for op in found]


def _written(segment: Segment) -> list[ops.Op]:
    """A segment's operations by rules. Raises NoRule."""
    layer = segment.single
    if layer is None:
        raise NoRule
    head = probability(layer, len(segment.start.shape), segment.arguments())
    return [head] if head else written(layer)


def _taped(segment: Segment) -> ops.Taped:
    """A segment as one step."""
    weights = [np.asarray(it) for layer in segment.operations for it in getattr(layer, "weights", ())]
    hidden = [it.name for it in _leaves(segment.operations) if _hides_activation(it)]
    return ops.Taped(segment.function(), segment.description(), weights, hidden)


def _without_probability(step: Step) -> Step:
    """A step inside of the chain, where softmax and sigmoid are activations like others."""
    if not isinstance(step.op, ops.Probability):
        return step
    return Step(ops.Taped(step.op.forward, step.op.kind, hidden=[step.layer or step.op.kind]), step.layer, step.kinds)


def _leaves(operations: list[Layer]) -> Iterator[Layer]:
    """The operations, in the place of a nested model those inside it, and before a wrapper what it wraps."""
    for operation in operations:
        if is_model(operation):
            yield from _leaves([it for it in operation.layers if type(it).__name__ != "InputLayer"])
            continue
        if hasattr(operation, "layer"):
            yield from _leaves([operation.layer])
        yield operation


def _refuse(operation: Layer) -> None:
    for it in _leaves([operation]):
        if type(it).__name__ == "Lambda":
            raise UnsupportedLayer(
                f"layer {it.name!r} is a Lambda, whose function cannot be known to be safe; replace it by Rescaling, "
                "another layer or an operation of keras.ops"
            )
        if type(it).__name__ == "Masking" or getattr(it, "mask_zero", False):
            raise UnsupportedLayer(
                f"layer {it.name!r} ({type(it).__name__}) makes a mask, which has no place in an image "
                "classifier; leave it out and save the model again"
            )
        if getattr(it, "data_format", None) == "channels_first":
            raise UnsupportedLayer(
                f"layer {it.name!r} ({type(it).__name__}) has data_format='channels_first'; 'channels_last' is needed"
            )


def _hides_activation(operation: Layer) -> bool:
    """True unless it is known that a taped operation has no activation in it."""
    has_none = is_linear(getattr(operation, "activation", None)) and kind_of(operation) in LINEAR
    return not (has_none and is_keras_own(operation))
