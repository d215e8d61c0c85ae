"""The structure of a network: its layers and what follows from them, known before any image is explained."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf

from convlens.worker.engine import ops
from convlens.worker.engine.chain import Step
from convlens.worker.engine.graph import UnsupportedLayer
from convlens.worker.engine.plan import SALIENCY_METHODS

Tensor = Any

_ACTIVATIONS: Final = (ops.Relu, ops.LeakyRelu, ops.Taped)
_BETWEEN: Final = (*_ACTIVATIONS, ops.Affine, ops.Identity)
"""Operations that may stand between a convolution and the activation that belongs to it."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer whose output can be requested."""

    name: str
    kind: str
    """Its Keras class."""
    shape: tuple[int, ...]
    """Its output's, without the batch axis."""
    is_taped: bool = False
    """True where its gradient is TensorFlow's own, for lack of a written rule."""

    @property
    def has_extent(self) -> bool:
        """True for a feature map of more than one position."""
        return len(self.shape) == 3 and self.shape[0] * self.shape[1] > 1


class Structure:
    """The steps of a network, where its layers and logits are among them, and the shapes of its layers."""

    def __init__(self, steps: list[Step], input_shape: tuple[int, int, int], model_name: str) -> None:
        self.steps = steps
        self.depths = {step.layer: i + 1 for i, step in enumerate(steps) if step.layer}
        """By layer: the number of steps up to its output."""
        head = next((i for i, step in enumerate(steps) if isinstance(step.op, ops.Probability)), None)
        self.head = None if head is None else steps[head].op
        """The softmax or sigmoid at the end; None for a model without one."""
        self.logits = len(steps) if head is None else head
        """The number of steps up to the logits."""
        self.layers = self._describe_layers(input_shape, model_name)
        self.score_layer: str = next(layer.name for layer in self.layers if self.depths[layer.name] >= self.logits)
        self.is_binary = isinstance(self.head, ops.Probability) and self.head.kind == "sigmoid" and self._outputs == 1

    @property
    def _outputs(self) -> int:
        return self.layers[-1].shape[-1]

    @property
    def units(self) -> int:
        """The number of classes; see Network.units."""
        return 2 if self.is_binary else self._outputs

    def units_of(self, scored_layer: str | None) -> int:
        """Count the units that a plan with this `scored_layer` can explain."""
        if scored_layer is None:
            return self.units
        return next(layer.shape[-1] for layer in self.layers if layer.name == scored_layer)

    def depth_of(self, scored_layer: str | None) -> int:
        """Return the number of steps up to the scores."""
        return self.logits if scored_layer is None else min(self.depths[scored_layer], self.logits)

    def has_two_scores(self, scored_layer: str | None) -> bool:
        """Return True where the scores are those of two classes, −z and z, of one unit's logit z."""
        return self.is_binary and self.depth_of(scored_layer) == self.logits

    def _describe_layers(self, input_shape: tuple[int, int, int], model_name: str) -> tuple[LayerInfo, ...]:
        """Find the shapes of the layers' outputs by tracing the forward pass without running it.

        Raises UnsupportedLayer where a shape is unknown, the output is not one score a class, or a step has no
        gradient.
        """
        shapes: list[tuple[int | None, ...]] = []

        def forward(x: Tensor) -> Tensor:
            for step in self.steps:
                y = step.op.forward(x)
                shapes.append(tuple(y.shape[1:]))
                if isinstance(step.op, ops.Taped) and tf.gradients(y, x) == [None]:
                    raise UnsupportedLayer(f"no gradient passes layer {step.layer!r} ({step.kind})")
                x = y
            return x

        tf.function(forward, autograph=False).get_concrete_function(tf.TensorSpec((None, *input_shape), tf.float32))
        layers = []
        for step, shape in zip(self.steps, shapes, strict=True):
            known = tuple(side for side in shape if side is not None)
            if known != shape:
                raise UnsupportedLayer(f"layer {step.layer!r} ({step.kind}) gives {shape}, whose size is not known")
            if step.layer:
                layers.append(LayerInfo(step.layer, step.kind, known, isinstance(step.op, ops.Taped)))
        scored = shapes[self.logits - 1] if self.logits else ()
        final = layers[-1].shape if layers else input_shape
        if self.head and any(side != 1 for side in scored[:-1]):
            raise UnsupportedLayer(
                f"model {model_name!r} makes probabilities of {scored}, of each place by itself; (classes,) is needed"
            )
        if not final or any(side != 1 for side in final[:-1]) or scored[-1:] != final[-1:]:
            raise UnsupportedLayer(
                f"model {model_name!r} gives {final} for each image; one score a class is needed, (classes,)"
            )
        return tuple(layers)

    def default_cam_layer(self) -> str | None:
        """Return the last convolution with an extent below the scores, or the last activation that follows it."""
        steps = {step.layer: step for step in self.steps if step.layer}
        below = [layer for layer in self.layers if self.depths[layer.name] < self.depth_of(self.score_layer)]
        chosen: LayerInfo | None = None
        follows = False
        for layer in below:
            step = steps[layer.name]
            if step.is_convolution and layer.has_extent:
                chosen, follows = layer, True
            elif not (follows and chosen and layer.shape == chosen.shape and isinstance(step.op, _BETWEEN)):
                follows = False
            elif isinstance(step.op, _ACTIVATIONS):
                chosen = layer
        return chosen.name if chosen else None

    def unavailable_methods(self) -> dict[str, str]:
        """Return the saliency methods that must see each activation and cannot, with the reason."""
        for step in self.steps[: self.logits]:
            if isinstance(step.op, ops.Taped) and step.op.hidden:
                several = len(step.op.hidden) > 1 or step.op.hidden[0] != step.layer
                inside = f" with {', '.join(step.op.hidden[:3])}{'…' * (len(step.op.hidden) > 3)} inside" * several
                reason = (
                    f"layer {step.layer!r} ({step.kind}) is computed as a whole{inside}; its activations cannot be seen"
                )
                return {name: reason for name, row in SALIENCY_METHODS.items() if row.rule != "vanilla"}
        return {}

    def hash_into(self, digest: hashlib._Hash) -> None:
        """Update `digest` with the operations and their weights, then drop the NumPy weights."""
        for step in self.steps:
            options = {
                name: value
                for name, value in vars(step.op).items()
                if isinstance(value, str | int | float | tuple) and name != "weights"
            }
            digest.update(f"{type(step.op).__name__} {step.layer} {sorted(options.items())}".encode())
            for weights in step.op.weights:
                digest.update(f"{weights.shape}".encode())
                digest.update(np.ascontiguousarray(weights).data)
        for step in self.steps:
            step.op.weights = ()  # TensorFlow's tensors hold them from here on
