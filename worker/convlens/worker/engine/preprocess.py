"""How RGB in 0…255 becomes a network's input, inside the graph, so that pixels travel to the device as uint8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import tensorflow as tf

Tensor = Any


@dataclass(frozen=True, slots=True)
class Preprocess:
    """One scheme."""

    forward: Callable[[Tensor], Tensor]
    """RGB float32 (N,H,W,3) in 0…255 to the network's input."""
    flips: bool
    """True when the network's channels are BGR; gradients are then put back in RGB order."""


_CAFFE_MEAN = (103.939, 116.779, 123.68)

PREPROCESS: Final[dict[str, Preprocess]] = {
    "caffe": Preprocess(lambda rgb: tf.reverse(rgb, [-1]) - tf.constant(_CAFFE_MEAN), flips=True),
    "unit": Preprocess(lambda rgb: rgb / 255.0, flips=False),
    "none": Preprocess(lambda rgb: rgb, flips=False),
}
"""By name: caffe (BGR minus the mean colour, Keras' VGG16), unit (RGB/255), none."""
