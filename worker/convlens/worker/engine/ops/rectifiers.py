"""Rectifiers: the one place where plain, guided and deconvnet gradients differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import tensorflow as tf

from convlens.worker.engine.ops.base import Op, Streams, Tensor

RECTIFIERS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "vanilla": lambda dy, y: tf.raw_ops.ReluGrad(gradients=dy, features=y),
    "guided": lambda dy, y: tf.raw_ops.ReluGrad(gradients=tf.nn.relu(dy), features=y),
    "deconvnet": lambda dy, _: tf.nn.relu(dy),
}
"""By rule: ∂S/∂x of a ReLU, from dy = ∂S/∂y and its output y, or its input, which has the same positive values."""


class Relu(Op):
    """max(x, 0). vanilla: dx = dy·[x>0]; guided: dx = dy·[dy>0]·[x>0]; deconvnet: dx = dy·[dy>0]."""

    def forward(self, x: Tensor) -> Tensor:
        return tf.nn.relu(x)

    def backward(self, dys: Streams, x: Tensor, y: Tensor, rules: Sequence[str]) -> Streams:
        return [RECTIFIERS[rule](dy, y) for dy, rule in zip(dys, rules, strict=True)]


class LeakyRelu(Op):
    """max(x, αx). vanilla: dx = dy where x > 0, else α·dy; the other rules are those of Relu."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return tf.nn.leaky_relu(x, self.slope)

    def backward(self, dys: Streams, x: Tensor, y: Tensor, rules: Sequence[str]) -> Streams:
        return [
            tf.raw_ops.LeakyReluGrad(gradients=dy, features=x, alpha=self.slope)
            if rule == "vanilla"
            else RECTIFIERS[rule](dy, x)
            for dy, rule in zip(dys, rules, strict=True)
        ]
