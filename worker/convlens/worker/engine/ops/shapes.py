"""What only moves values about, or lets them be; and the probabilities at the end."""

from __future__ import annotations

import math

import tensorflow as tf

from convlens.worker.engine.ops.base import Op, Tensor


class Pad(Op):
    """Zeros around the image: ((top, bottom), (left, right))."""

    def __init__(self, edges: tuple[tuple[int, int], tuple[int, int]]) -> None:
        self.edges = edges

    def forward(self, x: Tensor) -> Tensor:
        return tf.pad(x, [[0, 0], *self.edges, [0, 0]])

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        (top, _), (left, _) = self.edges
        return dy[:, top : top + x.shape[1], left : left + x.shape[2], :]


class Reshape(Op):
    """Another shape for the same values; flattening, too."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        size = math.prod(x.shape[1:])
        shape = [size // -math.prod(self.shape) if axis == -1 else axis for axis in self.shape]
        return tf.reshape(x, [-1, *shape])

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return tf.reshape(dy, [-1, *x.shape[1:]])


class Identity(Op):
    """Nothing, as dropout at inference."""

    def forward(self, x: Tensor) -> Tensor:
        return tf.identity(x)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return dy


class Probability(Op):
    """The last activation, softmax or sigmoid. Scores are taken before it, so it needs no gradient."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return tf.nn.softmax(x) if self.kind == "softmax" else tf.nn.sigmoid(x)
