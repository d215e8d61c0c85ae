"""Preprocessing: pixels in 0…255 to a network's input, (pixel − zero)·scale, RGB or BGR. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

LUMA: Final = (0.299, 0.587, 0.114)
"""Weights of the colours in luma (ITU-R BT.601), as in Pillow's mode L."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """A scheme; `zero` and `scale` have one value a channel in RGB order, or one for all channels."""

    zero: tuple[float, ...] = (0.0,)
    """The pixel value that becomes 0."""
    scale: tuple[float, ...] = (1.0,)
    flips: bool = False
    """True when the network takes BGR; its gradients are returned in RGB order all the same."""

    def forward(self, pixels: Any) -> Any:
        """Convert (…,C) floats in 0…255, of NumPy or TensorFlow, to the network's input."""
        x = pixels - np.array(self.zero, np.float32) if any(self.zero) else pixels
        x = x * np.array(self.scale, np.float32) if set(self.scale) != {1.0} else x
        return x[..., ::-1] if self.flips else x

    def accepts(self, channels: int) -> bool:
        """Return True when the scheme fits images of `channels` channels."""
        return {len(self.zero), len(self.scale)} <= {1, channels} and not (self.flips and channels != 3)


def from_mean_and_std(mean: Sequence[float], std: Sequence[float]) -> Preprocess:
    """Return the scheme (pixel − mean) / std, both in 0…255, one value a channel or one for all."""
    return Preprocess(tuple(mean), tuple(1 / deviation for deviation in std))


PREPROCESS: Final[dict[str, Preprocess]] = {
    # keras.applications.imagenet_utils, mode caffe: VGG16, VGG19, ResNet50
    "caffe": Preprocess((123.68, 116.779, 103.939), flips=True),
    # mode tf, x/127.5 − 1: MobileNet, Inception, Xception, ResNetV2
    "tf": Preprocess((127.5,), (1 / 127.5,)),
    # mode torch, (x/255 − mean) / std: DenseNet
    "torch": from_mean_and_std((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    # x/255, as ImageDataGenerator(rescale=1/255) gives it
    "unit": Preprocess(scale=(1 / 255,)),
    # unchanged: EfficientNet and other models with a rescaling layer of their own
    "none": Preprocess(),
}
"""By name."""


def convert_color(color: Sequence[float], channels: int) -> npt.NDArray[np.float32]:
    """Convert an RGB colour in 0…255 to a pixel of 3 channels, or of 1 by its luma."""
    rgb = np.asarray(color, np.float32)
    return rgb if channels == 3 else np.array([rgb @ np.array(LUMA, np.float32)], np.float32)
