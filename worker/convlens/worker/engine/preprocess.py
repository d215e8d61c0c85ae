"""How pixels in 0…255 become a network's input: (pixel − zero)·scale, in its order of channels. Knows no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

RGB: Final = (0.299, 0.587, 0.114)
"""What the colours weigh in a grey value (ITU-R BT.601), as in Pillow."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """One scheme; `zero` and `scale` hold a value for each channel, or one for all, in RGB order."""

    zero: tuple[float, ...] = (0.0,)
    """The pixel that becomes 0."""
    scale: tuple[float, ...] = (1.0,)
    flips: bool = False
    """True when the network's channels are BGR; gradients are then put back in RGB order."""

    def forward(self, pixels: Any) -> Any:
        """(…,C) floats, NumPy's or TensorFlow's, as the network's input."""
        x = pixels - np.array(self.zero, np.float32) if any(self.zero) else pixels
        x = x * np.array(self.scale, np.float32) if set(self.scale) != {1.0} else x
        return x[..., ::-1] if self.flips else x

    def takes(self, channels: int) -> bool:
        """True when it can be applied to so many channels."""
        return {len(self.zero), len(self.scale)} <= {1, channels} and not (self.flips and channels != 3)


def standardized(mean: Sequence[float], std: Sequence[float]) -> Preprocess:
    """(pixel − mean) / std, pixels in 0…255."""
    return Preprocess(tuple(mean), tuple(1 / it for it in std))


PREPROCESS: Final[dict[str, Preprocess]] = {
    # keras.applications.imagenet_utils, mode caffe: VGG16, VGG19, ResNet50
    "caffe": Preprocess((123.68, 116.779, 103.939), flips=True),
    # mode tf, x/127.5 − 1: MobileNet, Inception, Xception, ResNetV2
    "tf": Preprocess((127.5,), (1 / 127.5,)),
    # mode torch, (x/255 − mean) / std: DenseNet
    "torch": standardized((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    # x/255, as generators with rescale=1/255 give it
    "unit": Preprocess(scale=(1 / 255,)),
    # as it is: EfficientNet and other models that rescale by themselves
    "none": Preprocess(),
}
"""By name."""


def as_channels(color: Sequence[float], channels: int) -> npt.NDArray[np.float32]:
    """An RGB colour in 0…255 as a pixel of so many channels, 3 or 1."""
    rgb = np.asarray(color, np.float32)
    return rgb if channels == 3 else np.array([rgb @ np.array(RGB, np.float32)], np.float32)
