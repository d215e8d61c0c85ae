"""Operations with weights: convolution, dense, and a scale and offset a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import tensorflow as tf

from convlens.worker.engine.ops.base import Op, Streams, Tensor, Weights

MAX_CHANNELS_OF_SQUARES: Final = 4
"""The most channels of which 2×2 positions fit one vector of 16 floats."""


class Convolution(Op):
    """2-D convolution with bias.

    With stride 1 its gradient is itself a forward convolution, by the kernel flipped in space and transposed in
    channels, which libraries have tuned best. Where that has few output channels, as at an image's three colours, most
    lanes of a vector register would be idle; then one convolution of stride 2 computes squares of 2×2 positions, by a
    kernel of four shifted copies. `bench/engine/ratios.py` measures both.
    """

    def __init__(self, kernel: Weights, bias: Weights, strides: tuple[int, int], padding: str) -> None:
        self.weights = (kernel, bias)
        self.kernel, self.bias = tf.constant(kernel), tf.constant(bias)
        self.strides, self.padding = strides, padding
        rows, columns, inputs, _ = kernel.shape
        self._flipped = self._squares = None
        self._zeros = tf.zeros(inputs)
        if strides == (1, 1):
            flipped = np.ascontiguousarray(kernel[::-1, ::-1].transpose(0, 1, 3, 2))
            self._flipped = tf.constant(flipped)
            top, left = (0, 0) if padding == "VALID" else ((rows - 1) // 2, (columns - 1) // 2)
            bottom, right = (0, 0) if padding == "VALID" else (rows - 1 - top, columns - 1 - left)
            edges = [[rows - 1 - top, rows - 1 - bottom], [columns - 1 - left, columns - 1 - right]]
            self._edges = [[0, 0], *edges, [0, 0]]
            symmetric = padding == "SAME" and rows % 2 == 1 and columns % 2 == 1
            self._back_padding: Any = "SAME" if symmetric else self._edges
            if inputs <= MAX_CHANNELS_OF_SQUARES:
                self._squares = tf.constant(_squares(flipped))

    def forward(self, x: Tensor) -> Tensor:
        x = tf.cast(x, self.kernel.dtype)
        return tf.nn.bias_add(tf.nn.conv2d(x, self.kernel, self.strides, self.padding), self.bias)

    def backward(self, dys: Streams, x: Tensor, y: Tensor, rules: Sequence[str]) -> Streams:
        dxs = [self._backward(dy, x) for dy in dys]
        # a rectifier comes next, which TensorFlow fuses into the convolution when a bias is in between
        dxs = [
            dx if rule == "vanilla" else tf.nn.bias_add(dx, self._zeros) for dx, rule in zip(dxs, rules, strict=True)
        ]
        return [tf.cast(dx, x.dtype) for dx in dxs]

    def _backward(self, dy: Tensor, x: Tensor) -> Tensor:
        if self._flipped is None:
            return tf.nn.conv2d_transpose(dy, self.kernel, tf.shape(x), self.strides, self.padding)
        if self._squares is not None and x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
            return tf.nn.depth_to_space(tf.nn.conv2d(dy, self._squares, 2, self._edges), 2)
        return tf.nn.conv2d(dy, self._flipped, 1, self._back_padding)


class Dense(Op):
    """x·W + b along the last axis; on a feature map, a convolution of 1×1.

    Streams are stacked, so that the weights are read once for all of them.
    """

    def __init__(self, kernel: Weights, bias: Weights) -> None:
        self.weights = (kernel, bias)
        self.kernel, self.bias = tf.constant(kernel), tf.constant(bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = tf.cast(tf.reshape(x, [-1, x.shape[-1]]), self.kernel.dtype)
        return _shaped_as(x, tf.nn.bias_add(tf.matmul(rows, self.kernel), self.bias))

    def backward(self, dys: Streams, x: Tensor, y: Tensor, rules: Sequence[str]) -> Streams:
        rows = tf.reshape(tf.concat(dys, 0), [-1, y.shape[-1]])
        # matmul(transpose_b=True) takes five times as long for 16 rows on a CPU
        dx = _shaped_as(x, tf.cast(tf.einsum("nk,ik->ni", rows, self.kernel), x.dtype))
        return list(tf.split(dx, len(dys))) if len(dys) > 1 else [dx]


class Affine(Op):
    """x·a + b along the last axis: batch normalization at inference, rescaling."""

    def __init__(self, scale: Weights, offset: Weights) -> None:
        self.weights = (scale, offset)
        self.scale, self.offset = tf.constant(scale), tf.constant(offset)

    def forward(self, x: Tensor) -> Tensor:
        return tf.cast(x, self.scale.dtype) * self.scale + self.offset

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return tf.cast(dy * self.scale, x.dtype)


def _shaped_as(x: Tensor, rows: Tensor) -> Tensor:
    """Reshape rows (…,C) to the leading axes of `x`."""
    return tf.reshape(rows, [-1, *x.shape[1:-1], rows.shape[-1]])


def _squares(kernel: Weights) -> Weights:
    """Return the kernel (h+1,w+1,I,4·O) whose outputs at stride 2 are the 2×2 squares of `kernel`'s (h,w,I,O)."""
    rows, columns, inputs, outputs = kernel.shape
    squares = np.zeros((rows + 1, columns + 1, inputs, 2, 2, outputs), np.float32)
    for i, j in np.ndindex(2, 2):
        squares[i : i + rows, j : j + columns, :, i, j] = kernel
    return squares.reshape(rows + 1, columns + 1, inputs, 4 * outputs)
