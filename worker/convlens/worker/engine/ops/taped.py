"""What has no rule of its own: any differentiable function, with TensorFlow's own gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from convlens.worker.engine.ops.base import Op, Tensor, Weights


class Taped(Op):
    """A layer, or a region of several, as Keras computes it, in float32.

    `function` takes and gives a tensor. `description` and `weights` say all that decides its values, for a digest.
    `hidden` names the activations inside, whose gradients cannot be anything but their own.
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
        with tf.name_scope("taped"):  # where layers' names may begin with what no name in a graph begins with
            return tf.cast(self._function(tf.cast(x, tf.float32)), tf.float32)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        (found,) = tf.gradients(y, x, tf.cast(dy, y.dtype), unconnected_gradients="zero")
        return tf.cast(found, x.dtype)
