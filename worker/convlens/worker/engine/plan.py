"""What to compute on a batch, as values: equal plans share a pass. Knows no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

ALL_UNITS: Final = -1
"""The target that is the mean over all units of the scored layer."""
PREDICTED: Final = -2
"""The unit of the highest score; PREDICTED - 1 is the second highest, and so on."""


REDUCTIONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "none": lambda _, x: x,
    "abs_max": lambda np, x: np.max(np.abs(x), -1),
    "sum": lambda np, x: np.sum(x, -1),
    "mean": lambda np, x: np.mean(x, -1),
    "max": lambda np, x: np.max(x, -1),
    "norm": lambda np, x: np.sqrt(np.sum(x * x, -1)),
}
"""What is kept of the channels x, the last axis; the first argument is NumPy, or TensorFlow's twin of it."""


@dataclass(frozen=True, slots=True)
class SaliencyMethod:
    """What tells one saliency method from another."""

    rule: str
    """How gradients pass a ReLU: a key of ops.RECTIFIERS."""
    times: str = ""
    """What the gradient is multiplied by: input, cam, or nothing."""


SALIENCY_METHODS: Final = {
    # ∂S/∂x (Simonyan et al., 2013, https://arxiv.org/abs/1312.6034)
    "vanilla": SaliencyMethod("vanilla"),
    # Drops negative gradients at each ReLU (Springenberg et al., 2014, https://arxiv.org/abs/1412.6806). It hardly
    # depends on the upper layers' weights (Adebayo et al., 2018, https://arxiv.org/abs/1810.03292).
    "guided": SaliencyMethod("guided"),
    # The same without the forward pass's own mask (Zeiler and Fergus, 2014, https://arxiv.org/abs/1311.2901)
    "deconvnet": SaliencyMethod("deconvnet"),
    # (∂S/∂x)·x (Shrikumar et al., 2016, https://arxiv.org/abs/1605.01713), x the preprocessed input
    "gradient_x_input": SaliencyMethod("vanilla", times="input"),
    # The guided gradient times Grad-CAM of `layer`, upsampled (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391)
    "guided_grad_cam": SaliencyMethod("guided", times="cam"),
}
"""One row a method."""


CAM_METHODS: Final = ("grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam")
"""The names of cams.CAMS."""


@dataclass(frozen=True, slots=True)
class Saliency:
    """A gradient of the score with respect to the preprocessed input, by one of SALIENCY_METHODS.

    Gives (N,T,H,W), the channels reduced by one of REDUCTIONS, or (N,T,H,W,3) in RGB order where it is none.
    """

    method: str = "vanilla"
    reduction: str = "abs_max"
    layer: str = ""
    """Whose class activation map it is multiplied by; of guided_grad_cam alone."""


@dataclass(frozen=True, slots=True)
class GradCAM:
    """A class activation map, by one of cams.CAMS; raw, not normalised.

    `layer` is any layer with an extent in space below the scored one. Gives (N,T,h,w) as the layer's output, or with
    `upsampled` (N,T,H,W) as the input, bilinear with half-pixel centres; with `signed` without the last ReLU.
    """

    layer: str
    upsampled: bool = False
    method: str = "grad_cam"
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """A layer's output as Keras gives it, (N,…); of all channels when `channels` is empty, else of those, in order.

    The channels, the last axis, may be reduced by one of REDUCTIONS.
    """

    layer: str
    channels: tuple[int, ...] = ()
    reduction: str = "none"


@dataclass(frozen=True, slots=True)
class Score:
    """The scores themselves, (N,T)."""

    layer: str = ""
    """None's."""


Map = Saliency | GradCAM | Activation | Score
"""What one pass gives."""


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
        """True when a map explains a target."""
        return any(not isinstance(item, Activation) for item in self.maps)
