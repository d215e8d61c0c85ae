"""What to compute on a batch, as values: equal plans share a pass. Knows no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ALL_UNITS: Final = -1
"""The target that is the mean over all units of the scored layer."""
PREDICTED: Final = -2
"""The unit of the highest score; PREDICTED - 1 is the second highest, and so on."""


@dataclass(frozen=True, slots=True)
class Saliency:
    """∂S/∂x, the gradient of the score with respect to the preprocessed input (Simonyan et al., 2013).

    Guided backpropagation (Springenberg et al., 2014) also drops negative gradients at each ReLU. Gives (N,T,H,W), the
    largest absolute value of the channels, or with `signed` all of them in RGB order, (N,T,H,W,3).
    """

    guided: bool = False
    signed: bool = False


@dataclass(frozen=True, slots=True)
class GradCAM:
    """ReLU(Σ_k w_k A_k), w_k the mean over space of ∂S/∂A_k (Selvaraju et al., 2017); raw, not normalised.

    `layer` is any layer with an extent in space below the scored one. Gives (N,T,h,w) as the layer's output, or with
    `upsampled` (N,T,H,W) as the input, bilinear with half-pixel centres.
    """

    layer: str
    upsampled: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """A layer's output as Keras gives it, (N,…); of all channels when `channels` is empty, else of those, in order."""

    layer: str
    channels: tuple[int, ...] = ()


Map = Saliency | GradCAM | Activation


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass: which maps, for how many targets an image, of which layer's units."""

    maps: tuple[Map, ...]
    targets: int = 1
    """T, the targets of each image."""
    scored_layer: str | None = None
    """None: the logits. Else the score of a unit is the mean over space of that channel of this layer."""
    predictions: int = 0
    """How many of the best classes to report."""

    @property
    def targeted(self) -> bool:
        """True when a map asks for a gradient."""
        return any(not isinstance(item, Activation) for item in self.maps)
