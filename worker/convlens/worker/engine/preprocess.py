"""How RGB in 0…255 becomes a network's input: x = (RGB − zero)·scale, in its order of channels. Knows no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np


@dataclass(frozen=True, slots=True)
class Preprocess:
    """One scheme."""

    zero: tuple[float, float, float]
    """The RGB colour that becomes 0."""
    scale: float
    flips: bool
    """True when the network's channels are BGR; gradients are then put back in RGB order."""

    def forward(self, rgb: Any) -> Any:
        """(…,3) floats, NumPy's or TensorFlow's, as the network's input."""
        x = rgb - np.array(self.zero, np.float32) if any(self.zero) else rgb
        x = x * np.float32(self.scale) if self.scale != 1 else x
        return x[..., ::-1] if self.flips else x


PREPROCESS: Final[dict[str, Preprocess]] = {
    "caffe": Preprocess((123.68, 116.779, 103.939), 1.0, flips=True),
    "unit": Preprocess((0.0, 0.0, 0.0), 1 / 255, flips=False),
    "none": Preprocess((0.0, 0.0, 0.0), 1.0, flips=False),
}
"""By name: caffe (BGR minus ImageNet's mean colour, Keras' VGG16), unit (RGB/255), none."""
