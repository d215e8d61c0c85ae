"""Any differentiable function, with TensorFlow's own gradient: the fallback for layers without a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from convlens.worker.engine.ops.base import Op, Tensor, Weights


class Taped(Op):
    """A layer, or a region of several, as Keras computes it, in float32.

    `function` maps a tensor to a tensor. `description` and `weights` determine its values, for the digest. `hidden`
    names the activations inside, which pass plain gradients only.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        description: str,
        weights: Sequence[Weights] = (),
        hidden: Sequence[str] = (),
    ) -> None:
        self._function = function
        self.description = description
        self.weights = tuple(weights)
        self.hidden = tuple(hidden)

    def forward(self, x: Tensor) -> Tensor:
        with tf.name_scope("taped"):  # since a layer's name may begin with a character that no name in a graph may
            return tf.cast(self._function(tf.cast(x, tf.float32)), tf.float32)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        (gradient,) = tf.gradients(y, x, tf.cast(dy, y.dtype), unconnected_gradients="zero")
        return tf.cast(gradient, x.dtype)
