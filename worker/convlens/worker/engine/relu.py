"""How a gradient passes back through a ReLU: one row a rule. All that tells plain from guided backpropagation."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True, slots=True)
class ReluRule:
    """dx = dy·[dy>0 if clip]·[x>0 if gate]."""

    clip: bool
    gate: bool

    def __call__(self, dy: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The gradient below the ReLU, from the gradient dy above it and its output y, of one shape."""
        if self.clip:
            dy = tf.nn.relu(dy)
        return tf.raw_ops.ReluGrad(gradients=dy, features=y) if self.gate else dy


RULES: dict[str, ReluRule] = {
    # The gradient itself: Simonyan et al., 2013, https://arxiv.org/abs/1312.6034
    "vanilla": ReluRule(clip=False, gate=True),
    # Guided backpropagation: Springenberg et al., 2014, https://arxiv.org/abs/1412.6806
    "guided": ReluRule(clip=True, gate=True),
}
