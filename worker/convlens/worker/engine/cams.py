"""Class activation maps: functions of a layer's activations and of the score's gradient there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import tensorflow as tf

Tensor = Any


def _weighted(a: Tensor, w: Tensor) -> Tensor:
    """Σ_k w_k·A_k, with weights (N,C)."""
    return tf.einsum("nhwc,nc->nhw", a, w)


def _grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Grad-CAM: Σ_k w_k·A_k, w_k = mean(g_k).

    Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391
    """
    return _weighted(a, tf.reduce_mean(g, (1, 2)))


def _grad_cam_plus_plus(a: Tensor, g: Tensor) -> Tensor:
    """Grad-CAM++: Σ_k w_k·A_k, w_k = Σ α_k·ReLU(g_k), α_k = g_k² / (2·g_k² + ΣA_k·g_k³).

    Chattopadhay et al., 2018, https://arxiv.org/abs/1710.11063; of the logit, not of its exponential. Computed by
    α_k = 1 / (2 + ΣA_k·g_k), which is the same where g_k is not zero.
    """
    sums = tf.reduce_sum(a, (1, 2), keepdims=True)
    positive = tf.nn.relu(g)
    return _weighted(a, tf.reduce_sum(tf.math.divide_no_nan(positive, 2 + sums * positive), (1, 2)))


def _hires_cam(a: Tensor, g: Tensor) -> Tensor:
    """HiResCAM: Σ_k g_k·A_k, elementwise.

    Draelos and Carin, 2020, https://arxiv.org/abs/2011.08891
    """
    return tf.reduce_sum(g * a, -1)


def _layer_cam(a: Tensor, g: Tensor) -> Tensor:
    """LayerCAM: Σ_k ReLU(g_k)·A_k, elementwise.

    Jiang et al., 2021, https://doi.org/10.1109/TIP.2021.3089943
    """
    return tf.reduce_sum(tf.nn.relu(g) * a, -1)


CAMS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "grad_cam": _grad_cam,
    "grad_cam_plus_plus": _grad_cam_plus_plus,
    "hires_cam": _hires_cam,
    "layer_cam": _layer_cam,
}
"""By method: the map (N,h,w) before its final ReLU, from activations A and gradients g = ∂S/∂A, both (N,h,w,C)."""
