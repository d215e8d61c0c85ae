"""Pooling over windows and over the whole extent."""

from __future__ import annotations

import tensorflow as tf

from convlens.worker.engine.ops.base import Op, Tensor


class MaxPool(Op):
    """Maximum over windows; the gradient goes to the first maximum of each."""

    def __init__(self, size: tuple[int, int], strides: tuple[int, int], padding: str) -> None:
        self.size, self.strides, self.padding = size, strides, padding

    @property
    def disjoint(self) -> bool:
        """True when the windows do not overlap."""
        return self.strides[0] >= self.size[0] and self.strides[1] >= self.size[1]

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
    """Mean over the extent, summed in float32."""

    def __init__(self, keep_axes: bool) -> None:
        self.keep_axes = keep_axes

    def forward(self, x: Tensor) -> Tensor:
        return tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), (1, 2), keepdims=self.keep_axes), x.dtype)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        area = x.shape[1] * x.shape[2]
        return tf.broadcast_to(_as_map(dy, x) / area, tf.shape(x))


class GlobalMax(Op):
    """Maximum over the extent; equal maxima share the gradient."""

    def __init__(self, keep_axes: bool) -> None:
        self.keep_axes = keep_axes

    def forward(self, x: Tensor) -> Tensor:
        return tf.reduce_max(x, (1, 2), keepdims=self.keep_axes)

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        largest = tf.cast(tf.equal(x, _as_map(y, x)), x.dtype)
        return _as_map(dy, x) * largest / tf.reduce_sum(largest, (1, 2), keepdims=True)


def _as_map(pooled: Tensor, x: Tensor) -> Tensor:
    """Reshape a globally pooled value to (N,1,1,C)."""
    return tf.reshape(pooled, [-1, 1, 1, x.shape[-1]])
