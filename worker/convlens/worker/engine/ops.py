"""The links of a chain: what each computes, and how a gradient passes back through it. Knows no Keras and no methods.

Shapes: x and y hold N rows. A gradient dy holds R·N rows, R gradients of the same N images stacked along the batch with
the image running fastest, so that one convolution serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

Array = np.ndarray[Any, Any]


def repeated(x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """X, stacked as often as the gradient `like` holds it."""
    copies = like.shape[0] // x.shape[0]
    return x if copies == 1 else tf.concat([x] * copies, 0)


def _constant(array: Array) -> tf.Tensor:
    return tf.constant(np.asarray(array, np.float32))


class Op:
    """A link of the chain."""

    def forward(self, x: tf.Tensor) -> tf.Tensor:
        """The output y for the input x."""
        raise TypeError(f"{type(self).__name__} has no forward rule")

    def backward(self, dy: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The gradient at the input, from the gradient dy at the output."""
        raise TypeError(f"{type(self).__name__} has no backward rule")

    def parameters(self) -> dict[str, Any]:
        """What the op is made of, arrays and plain values by name: what a digest is taken of."""
        return {}


class ReLU(Op):
    """max(x, 0). Its backward pass is a rule of its own (see relu.py)."""

    def forward(self, x: tf.Tensor) -> tf.Tensor:  # noqa: D102
        return tf.nn.relu(x)


@dataclass(frozen=True, eq=False)
class Probability(Op):
    """The softmax or sigmoid that ends a classifier. Split off: nothing is ever differentiated through it."""

    kind: str

    def forward(self, x: tf.Tensor) -> tf.Tensor:  # noqa: D102
        return tf.nn.softmax(x) if self.kind == "softmax" else tf.sigmoid(x)

    def parameters(self) -> dict[str, Any]:  # noqa: D102
        return {"kind": self.kind}


class Conv(Op):
    """A 2-D convolution, HWIO kernel and bias.

    At stride 1 the gradient with respect to the input is itself a forward convolution, with the kernel flipped in space
    and transposed in channels: the best-tuned kernel there is.
    """

    def __init__(self, kernel: Array, bias: Array | None, strides: tuple[int, int], padding: str) -> None:
        self._arrays = {"kernel": kernel, "bias": bias}
        self.kernel = _constant(kernel)
        self.bias = None if bias is None else _constant(bias)
        self.strides = strides
        self.padding = padding
        height, width = kernel.shape[:2]
        same = padding == "SAME" and height % 2 == 1 and width % 2 == 1
        self._flipped: tf.Tensor | None = None
        if strides == (1, 1) and (same or padding == "VALID"):
            self._flipped = _constant(kernel[::-1, ::-1].transpose(0, 1, 3, 2))
            full = [[0, 0], [height - 1] * 2, [width - 1] * 2, [0, 0]]
            self._flipped_padding = "SAME" if same else full

    def forward(self, x: tf.Tensor) -> tf.Tensor:  # noqa: D102
        y = tf.nn.conv2d(x, self.kernel, self.strides, self.padding)
        return y if self.bias is None else tf.nn.bias_add(y, self.bias)

    def backward(self, dy: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:  # noqa: ARG002, D102
        if self._flipped is not None:
            return tf.nn.conv2d(dy, self._flipped, 1, self._flipped_padding)
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[dy.shape[0], *x.shape[1:]],
            filter=self.kernel,
            out_backprop=dy,
            strides=[1, *self.strides, 1],
            padding=self.padding,
        )

    def parameters(self) -> dict[str, Any]:  # noqa: D102
        return {"strides": self.strides, "padding": self.padding, "kernel": self.kernel, "bias": self.bias}


class Dense(Op):
    """x·kernel + bias over the last axis."""

    def __init__(self, kernel: Array, bias: Array | None) -> None:
        self.kernel = _constant(kernel)
        self.bias = None if bias is None else _constant(bias)

    def forward(self, x: tf.Tensor) -> tf.Tensor:  # noqa: D102
        y = tf.matmul(x, self.kernel)
        return y if self.bias is None else y + self.bias

    def backward(self, dy: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:  # noqa: ARG002, D102
        return tf.matmul(dy, self.kernel, transpose_b=True)

    def parameters(self) -> dict[str, Any]:  # noqa: D102
        return {"kernel": self.kernel, "bias": self.bias}
