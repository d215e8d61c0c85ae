"""Operations that rearrange values or keep them, and the probabilities at the end."""

from __future__ import annotations

import math

import tensorflow as tf

from convlens.worker.engine.ops.base import Op, Tensor


class Pad(Op):
    """Pad with zeros: ((top, bottom), (left, right))."""

    def __init__(self, edges: tuple[tuple[int, int], tuple[int, int]]) -> None:
        self.edges = edges

    def forward(self, x: Tensor) -> Tensor:
        return tf.pad(x, [[0, 0], *self.edges, [0, 0]])

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        (top, _), (left, _) = self.edges
        return dy[:, top : top + x.shape[1], left : left + x.shape[2], :]


class Reshape(Op):
    """Reshape or flatten."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        size = math.prod(x.shape[1:])
        shape = [size // -math.prod(self.shape) if axis == -1 else axis for axis in self.shape]
        return tf.reshape(x, [-1, *shape])

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return tf.reshape(dy, [-1, *x.shape[1:]])


class Identity(Op):
    """No operation, such as dropout at inference."""

    def forward(self, x: Tensor) -> Tensor:
        return tf.identity(x)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return dy


class Probability(Op):
    """The softmax or sigmoid at the end. Scores are logits, so it needs no gradient."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return tf.nn.softmax(x) if self.kind == "softmax" else tf.nn.sigmoid(x)
