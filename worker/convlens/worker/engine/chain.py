"""Convert a Keras model, nested models included, to a chain of operations.

A layer with a rule (rules.py) becomes operations with a written backward pass. Any other segment of the graph, a layer
or a region with branches, becomes one taped step: the Keras layers forward, TensorFlow's gradient backward.
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
    split_into_segments,
)
from convlens.worker.engine.kinds import RANGE_PRESERVING, WITHOUT_HIDDEN_ACTIVATION
from convlens.worker.engine.rules import NoRule, convert_layer, convert_probability, is_linear


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of the chain."""

    op: ops.Op
    layer: str | None
    """The Keras layer whose output this is, with #2, #3… for repeated calls; None for an inner operation of a layer."""
    kinds: tuple[str, ...]
    """The Keras classes of its operations; the last one is that of the layer."""

    @property
    def kind(self) -> str:
        """The Keras class of the layer whose output this is."""
        return self.kinds[-1]

    @property
    def is_convolution(self) -> bool:
        """True for a convolution, and for a region that contains one."""
        return any("Conv" in kind for kind in self.kinds)


def build_chain(model: Layer, output: str | None = None) -> list[Step]:
    """Return the steps of `model` to its output, or to the one named `output`, in order.

    Raises UnsupportedLayer that names the layer which cannot be explained.
    """
    calls: Counter[str] = Counter()
    segments = _flatten(split_into_segments(model, output))
    steps = [step for segment in segments for step in _convert(segment, calls)]
    head = next((i for i in reversed(range(len(steps))) if not isinstance(steps[i].op, _AFTER_HEAD)), 0)
    return [step if i >= head else _without_probability(step) for i, step in enumerate(steps)]


def find_rescaling_layer(model: Layer, output: str | None = None) -> str:
    """Return the name of the layer by which a model rescales raw pixels itself; empty for a model without one."""
    for segment in _flatten(split_into_segments(model, output)):
        raw, rescaling = {0}, []
        for number, (operation, inputs) in enumerate(segment.iter_calls(), start=1):
            if raw.isdisjoint(inputs):
                continue
            if kind_of(operation) in RANGE_PRESERVING:
                raw.add(number)
            elif name := _rescaling_name(operation):
                rescaling.append(name)
            else:
                return ""
        if rescaling:
            return rescaling[0]
    return ""


def _rescaling_name(operation: Layer) -> str:
    """Return the name of the rescaling in an operation on raw pixels; empty for an operation with trained weights."""
    if is_model(operation):
        return find_rescaling_layer(operation) if _has_one_path(operation) else ""
    has_weights = bool(getattr(operation, "weights", ())) and kind_of(operation) != "Normalization"
    return "" if has_weights else str(operation.name)


def _has_one_path(model: Layer) -> bool:
    return len(model.inputs or ()) == len(model.outputs or ()) == 1


_AFTER_HEAD: Final = (ops.Identity, ops.Reshape)
"""Operations that may follow the probabilities at the end of a model."""


def _flatten(segments: list[Segment]) -> Iterator[Segment]:
    """Yield the segments, those of nested models in place of the nested model."""
    for segment in segments:
        if segment.training_operation:
            raise UnsupportedLayer(
                f"layer {segment.training_operation!r} is called with training=True: what it gives changes from call "
                "to call"
            )
        inner = segment.single
        if inner is not None and is_model(inner) and _has_one_path(inner):
            yield from _flatten(split_into_segments(inner))
        else:
            yield segment


def _convert(segment: Segment, calls: Counter[str]) -> list[Step]:
    """Convert a segment to steps by the rule of its only layer, or to one taped step."""
    for operation in segment.operations:
        _check_supported(operation)
    last = segment.operations[-1]
    calls[last.name] += 1
    name = last.name if calls[last.name] == 1 else f"{last.name}#{calls[last.name]}"
    try:
        converted = _convert_by_rule(segment)
    except NoRule:
        return [Step(_tape(segment), name, tuple(map(kind_of, _leaves(segment.operations))))]
    return [Step(op, name if op is converted[-1] else None, (kind_of(last),)) for op in converted]


def _convert_by_rule(segment: Segment) -> list[ops.Op]:
    """Convert a segment of one layer by the layer's rule. Raises NoRule."""
    layer = segment.single
    if layer is None:
        raise NoRule
    head = convert_probability(layer, len(segment.start.shape), segment.read_arguments())
    return [head] if head else convert_layer(layer)


def _tape(segment: Segment) -> ops.Taped:
    """Convert a segment to one taped operation."""
    weights = [np.asarray(weight) for layer in segment.operations for weight in getattr(layer, "weights", ())]
    hidden = [leaf.name for leaf in _leaves(segment.operations) if _hides_activation(leaf)]
    return ops.Taped(segment.build_function(), segment.describe(), weights, hidden)


def _without_probability(step: Step) -> Step:
    """Convert a softmax or sigmoid inside the chain to a taped step: it is an activation like any other."""
    if not isinstance(step.op, ops.Probability):
        return step
    return Step(ops.Taped(step.op.forward, step.op.kind, hidden=[step.layer or step.op.kind]), step.layer, step.kinds)


def _leaves(operations: list[Layer]) -> Iterator[Layer]:
    """Yield the operations, those inside a nested model in place of the model, wrapped layers before their wrapper."""
    for operation in operations:
        if is_model(operation):
            yield from _leaves([layer for layer in operation.layers if type(layer).__name__ != "InputLayer"])
            continue
        if hasattr(operation, "layer"):
            yield from _leaves([operation.layer])
        yield operation


def _check_supported(operation: Layer) -> None:
    """Raise UnsupportedLayer for a Lambda, a mask, or channels before space."""
    for leaf in _leaves([operation]):
        if type(leaf).__name__ == "Lambda":
            raise UnsupportedLayer(
                f"layer {leaf.name!r} is a Lambda, whose function cannot be known to be safe; replace it by Rescaling, "
                "another layer or an operation of keras.ops"
            )
        if type(leaf).__name__ == "Masking" or getattr(leaf, "mask_zero", False):
            raise UnsupportedLayer(
                f"layer {leaf.name!r} ({type(leaf).__name__}) makes a mask, which has no place in an image "
                "classifier; leave it out and save the model again"
            )
        if getattr(leaf, "data_format", None) == "channels_first":
            raise UnsupportedLayer(
                f"layer {leaf.name!r} ({type(leaf).__name__}) has data_format='channels_first'; 'channels_last' is "
                "needed"
            )


def _hides_activation(operation: Layer) -> bool:
    """Return True unless a taped operation is known to have no activation inside."""
    is_known = is_linear(getattr(operation, "activation", None)) and kind_of(operation) in WITHOUT_HIDDEN_ACTIVATION
    return not (is_known and is_keras_own(operation))
