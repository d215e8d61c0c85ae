"""The operations a VGG-like chain is made of, each with its forward and its written-out backward rule.

Gradients come as a list of streams, one a target and rule: all share the forward values. A stream has a rule,
and only the rectifiers make a difference between rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Tensor = Any
Weights = npt.NDArray[np.float32]
Streams = list[Tensor]


class Op:
    """One operation. Subclasses give `forward` and, stream by stream, `gradient`."""

    weights: tuple[Weights, ...] = ()

    def compute_in(self, dtype: Any) -> None:
        """Casts the weights; what passes is cast to them on its way in, and gradients back on their way out."""
        for name, value in vars(self).items():
            if tf.is_tensor(value):
                setattr(self, name, tf.cast(value, dtype))

    def forward(self, x: Tensor) -> Tensor:
        """The output for input `x`, batch first."""
        raise TypeError(f"{type(self).__name__} has no forward rule")

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """∂S/∂x from ∂S/∂y of one plain stream."""
        raise TypeError(f"{type(self).__name__} has no backward rule")

    def backward(self, dys: Streams, x: Tensor, y: Tensor, rules: Sequence[str]) -> Streams:
        """∂S/∂x of every stream; `rules` says how each passes rectifiers."""
        return [self.gradient(dy, x, y) for dy in dys]


class Convolution(Op):
    """2-D convolution with bias.

    With stride 1 its gradient is itself a forward convolution, of the kernel flipped in space and transposed in
    channels: the best-tuned kernel there is.
    """

    def __init__(self, kernel: Weights, bias: Weights, strides: tuple[int, int], padding: str) -> None:
        self.weights = (kernel, bias)
        self.kernel, self.bias = tf.constant(kernel), tf.constant(bias)
        self.strides, self.padding = strides, padding
        rows, columns = kernel.shape[:2]
        self._flipped = None
        if strides == (1, 1):
            self._flipped = tf.constant(np.ascontiguousarray(kernel[::-1, ::-1].transpose(0, 1, 3, 2)))
            top, left = (0, 0) if padding == "VALID" else ((rows - 1) // 2, (columns - 1) // 2)
            bottom, right = (0, 0) if padding == "VALID" else (rows - 1 - top, columns - 1 - left)
            edges = [[rows - 1 - top, rows - 1 - bottom], [columns - 1 - left, columns - 1 - right]]
            symmetric = padding == "SAME" and rows % 2 == 1 and columns % 2 == 1
            self._back_padding: Any = "SAME" if symmetric else [[0, 0], *edges, [0, 0]]

    def forward(self, x: Tensor) -> Tensor:
        x = tf.cast(x, self.kernel.dtype)
        return tf.nn.bias_add(tf.nn.conv2d(x, self.kernel, self.strides, self.padding), self.bias)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if self._flipped is not None:
            return tf.cast(tf.nn.conv2d(dy, self._flipped, 1, self._back_padding), x.dtype)
        dx = tf.nn.conv2d_transpose(dy, self.kernel, tf.shape(x), self.strides, self.padding)
        return tf.cast(dx, x.dtype)


class Dense(Op):
    """x·W + b. Streams are stacked, so that the weights are read once for all of them."""

    def __init__(self, kernel: Weights, bias: Weights) -> None:
        self.weights = (kernel, bias)
        self.kernel, self.bias = tf.constant(kernel), tf.constant(bias)

    def forward(self, x: Tensor) -> Tensor:
        return tf.nn.bias_add(tf.matmul(tf.cast(x, self.kernel.dtype), self.kernel), self.bias)

    def backward(self, dys: Streams, x: Tensor, y: Tensor, rules: Sequence[str]) -> Streams:
        dx = tf.cast(tf.matmul(tf.concat(dys, 0), self.kernel, transpose_b=True), x.dtype)
        return list(tf.split(dx, len(dys))) if len(dys) > 1 else [dx]


RECTIFIERS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "vanilla": lambda dy, y: tf.raw_ops.ReluGrad(gradients=dy, features=y),
    "guided": lambda dy, y: tf.raw_ops.ReluGrad(gradients=tf.nn.relu(dy), features=y),
    "deconvnet": lambda dy, _: tf.nn.relu(dy),
}
"""One row a rule: the gradient below a ReLU from the gradient dy above it and its output y (or input: signs count)."""


class Relu(Op):
    """max(x, 0). vanilla: dx = dy·[x>0]; guided: dx = dy·[dy>0]·[x>0]; deconvnet: dx = dy·[dy>0]."""

    def forward(self, x: Tensor) -> Tensor:
        return tf.nn.relu(x)

    def backward(self, dys: Streams, x: Tensor, y: Tensor, rules: Sequence[str]) -> Streams:
        return [RECTIFIERS[rule](dy, y) for dy, rule in zip(dys, rules, strict=True)]


class LeakyRelu(Op):
    """max(x, αx). vanilla: dx = dy where x > 0, else α·dy. Else as in Relu, which has no slope below zero."""

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


class MaxPool(Op):
    """Maximum over windows; the gradient goes to the first largest value of each."""

    def __init__(self, size: tuple[int, int], strides: tuple[int, int], padding: str) -> None:
        self.size, self.strides, self.padding = size, strides, padding

    def forward(self, x: Tensor) -> Tensor:
        return tf.nn.max_pool2d(x, self.size, self.strides, self.padding)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return tf.raw_ops.MaxPoolGrad(
            orig_input=x,
            orig_output=y,
            grad=dy,
            ksize=[1, *self.size, 1],
            strides=[1, *self.strides, 1],
            padding=self.padding,
        )


class AveragePool(Op):
    """Mean over windows."""

    def __init__(self, size: tuple[int, int], strides: tuple[int, int], padding: str) -> None:
        self.size, self.strides, self.padding = size, strides, padding

    def forward(self, x: Tensor) -> Tensor:
        return tf.nn.avg_pool2d(x, self.size, self.strides, self.padding)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return tf.raw_ops.AvgPoolGrad(
            orig_input_shape=tf.shape(x),
            grad=dy,
            ksize=[1, *self.size, 1],
            strides=[1, *self.strides, 1],
            padding=self.padding,
        )


class GlobalAverage(Op):
    """Mean over space."""

    def __init__(self, keep_axes: bool) -> None:
        self.keep_axes = keep_axes

    def forward(self, x: Tensor) -> Tensor:
        return tf.reduce_mean(x, (1, 2), keepdims=self.keep_axes)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        area = x.shape[1] * x.shape[2]
        return tf.broadcast_to(_spread(dy, x) / area, tf.shape(x))


class GlobalMax(Op):
    """Maximum over space; equal maxima share the gradient."""

    def __init__(self, keep_axes: bool) -> None:
        self.keep_axes = keep_axes

    def forward(self, x: Tensor) -> Tensor:
        return tf.reduce_max(x, (1, 2), keepdims=self.keep_axes)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        largest = tf.cast(tf.equal(x, _spread(y, x)), x.dtype)
        return _spread(dy, x) * largest / tf.reduce_sum(largest, (1, 2), keepdims=True)


class Affine(Op):
    """x·a + b along the last axis: batch normalisation at inference, rescaling."""

    def __init__(self, scale: Weights, offset: Weights) -> None:
        self.weights = (scale, offset)
        self.scale, self.offset = tf.constant(scale), tf.constant(offset)

    def forward(self, x: Tensor) -> Tensor:
        return tf.cast(x, self.scale.dtype) * self.scale + self.offset

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return tf.cast(dy * self.scale, x.dtype)


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


def _spread(pooled: Tensor, x: Tensor) -> Tensor:
    """A globally pooled value as (N,1,1,C)."""
    return tf.reshape(pooled, [-1, 1, 1, x.shape[-1]])
