"""What to compute in a pass, as values: equal plans share a pass. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

ALL_UNITS: Final = -1
"""The target that is the mean over all units of the scored layer."""
PREDICTED: Final = -2
"""The target that is the unit of the highest score; PREDICTED - 1 is that of the second highest, and so on."""


REDUCTIONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "none": lambda _, x: x,
    "abs_max": lambda np, x: np.max(np.abs(x), -1),
    "sum": lambda np, x: np.sum(x, -1),
    "mean": lambda np, x: np.mean(x, -1),
    "max": lambda np, x: np.max(x, -1),
    "norm": lambda np, x: np.sqrt(np.sum(x * x, -1)),
}
"""By name: the reduction of x over its channels, the last axis; the first argument is NumPy, or TensorFlow's NumPy."""


@dataclass(frozen=True, slots=True)
class SaliencyMethod:
    """How a saliency method differs from the plain gradient."""

    rule: str
    """How gradients pass a ReLU: a key of ops.RECTIFIERS."""
    times: str = ""
    """The factor of the gradient: input, cam, or none."""


SALIENCY_METHODS: Final = {
    # ∂S/∂x (Simonyan et al., 2013, https://arxiv.org/abs/1312.6034)
    "vanilla": SaliencyMethod("vanilla"),
    # Negative gradients are dropped at each ReLU (Springenberg et al., 2014, https://arxiv.org/abs/1412.6806). The map
    # hardly depends on the upper layers' weights (Adebayo et al., 2018, https://arxiv.org/abs/1810.03292).
    "guided": SaliencyMethod("guided"),
    # As guided, without the forward pass's mask (Zeiler and Fergus, 2014, https://arxiv.org/abs/1311.2901)
    "deconvnet": SaliencyMethod("deconvnet"),
    # (∂S/∂x)·x, x the preprocessed input (Shrikumar et al., 2016, https://arxiv.org/abs/1605.01713)
    "gradient_x_input": SaliencyMethod("vanilla", times="input"),
    # The guided gradient times Grad-CAM of `layer`, upsampled (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391)
    "guided_grad_cam": SaliencyMethod("guided", times="cam"),
}
"""By name."""


CAM_METHODS: Final = ("grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam")
"""The keys of cams.CAMS, for code that imports no TensorFlow."""


@dataclass(frozen=True, slots=True)
class Saliency:
    """The gradient ∂S/∂x of the score with respect to the preprocessed input, by one of SALIENCY_METHODS.

    Gives (N,T,H,W) float32, or (N,T,H,W,C) in RGB order without a reduction.
    """

    method: str = "vanilla"
    reduction: str = "abs_max"
    """A key of REDUCTIONS, over the channels."""
    layer: str = ""
    """The layer of the class activation map; of guided_grad_cam alone."""


@dataclass(frozen=True, slots=True)
class GradCAM:
    """A class activation map of a layer's activations and gradients, by one of cams.CAMS; not normalised.

    Gives (N,T,h,w) float32, the layer's height and width, or (N,T,H,W), the input's, with `upsampled`.
    """

    layer: str
    """A layer below the scored one whose output is (h,w,channels)."""
    upsampled: bool = False
    """Resize to the input, bilinear with half-pixel centres."""
    method: str = "grad_cam"
    signed: bool = False
    """Omit the ReLU at the end of the formula."""


@dataclass(frozen=True, slots=True)
class Activation:
    """A layer's output as Keras computes it, (N,…) float32."""

    layer: str
    channels: tuple[int, ...] = ()
    """The channels to return, in this order; empty: all of them."""
    reduction: str = "none"
    """A key of REDUCTIONS, over the channels."""


@dataclass(frozen=True, slots=True)
class Score:
    """The scores themselves, (N,T) float32."""

    layer: str = ""
    """Empty; there for uniformity with the other maps."""


Map = Saliency | GradCAM | Activation | Score
"""An array that a single pass can give."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass: the maps to compute, and what they explain."""

    maps: tuple[Map, ...]
    targets: int = 1
    """T, the number of targets of each image."""
    scored_layer: str | None = None
    """None: a unit's score is its logit. Else it is the spatial mean of that channel of this layer."""
    predictions: int = 0
    """The number of best classes to return."""

    @property
    def targeted(self) -> bool:
        """True when a map explains a target."""
        return any(not isinstance(item, Activation) for item in self.maps)
