"""Visualizations as values: one small dataclass per method, and its message on the wire."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from convlens.client.errors import InvalidArgument
from convlens.v1 import spec_pb2, tensor_pb2
from convlens.v1.enums import values_by_name


class Visualization(Protocol):
    """What visualize() computes: Saliency, GradCAM, Activations or Occlusion."""

    def message(self) -> spec_pb2.Visualization:
        """Return the message. InvalidArgument for an unknown method or a value out of range."""


SaliencyMethod = Literal[
    "vanilla", "guided", "deconvnet", "gradient_x_input", "guided_grad_cam", "smooth_grad", "smooth_grad_squared",
    "var_grad", "integrated_gradients", "xrai",
]  # fmt: skip
CamMethod = Literal["grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "score_cam"]
MapReduction = Literal["abs_max", "sum", "mean", "max", "norm"]
"""How the colour channels of a saliency map become one."""
ChannelReduction = MapReduction | Literal["none"]
"""How the channels of activations become one; none keeps them."""
Normalization = Literal["none", "min_max", "max_abs"]
DType = Literal["float32", "float16", "uint8"]
ColorName = Literal["black", "white", "gray"]

SALIENCY_METHODS: Final = values_by_name(spec_pb2.SaliencyMethod)
CAM_METHODS: Final = values_by_name(spec_pb2.CamMethod)
REDUCTIONS: Final = values_by_name(spec_pb2.ChannelReduction)
NORMALIZATIONS: Final = values_by_name(spec_pb2.Normalization)
DTYPES: Final = {
    "float32": tensor_pb2.DATA_TYPE_FP32,
    "float16": tensor_pb2.DATA_TYPE_FP16,
    "uint8": tensor_pb2.DATA_TYPE_UINT8,
}
COLORS: Final = {"black": (0.0, 0.0, 0.0), "white": (255.0, 255.0, 255.0), "gray": (127.5, 127.5, 127.5)}

Color = ColorName | Sequence[float]
"""black, white, gray, or RGB in 0…255."""


@dataclass(frozen=True, slots=True)
class Blur:
    """A baseline: the image itself, blurred by a Gaussian of `sigma` pixels of the model's input, 0.5…64."""

    sigma: float = 10.0


@dataclass(frozen=True, slots=True)
class Output:
    """The form of an array, applied in this order; by default as computed, float32.

    `size` (height, width): resized, bilinear with half-pixel centres, a mean where it shrinks. `normalization` of each
    map by itself: none, min_max (to 0…1) or max_abs (to −1…1); a flat map becomes zeros. `dtype`: float32, float16, or
    uint8, 256 even steps from each map's smallest to its largest value (see Result.restored).
    """

    size: tuple[int, int] | None = None
    normalization: Normalization = "none"
    dtype: DType = "float32"

    def message(self) -> spec_pb2.Output:
        """Return the message."""
        height, width = self.size or (0, 0)
        return spec_pb2.Output(
            height=height,
            width=width,
            normalization=_named(NORMALIZATIONS, self.normalization, "normalization"),
            datatype=_named(DTYPES, self.dtype, "dtype"),
        )


RAW: Final = Output()
"""As computed."""
_SIGNED: Final = ("signed", "sum", "mean", "max")
"""Ends of the names of maps that keep the sign of what they are made of; abs_max and norm drop it."""
_SQUARES: Final = ("smooth_grad_squared", "var_grad")
"""Saliency methods that are never negative, however their colour channels are reduced."""


def is_signed(name: str) -> bool:
    """Return True for the name of a map in which negative values are evidence against the target.

    These are occlusion, every map computed with `signed=True`, and saliency reduced by sum, mean or max.
    """
    kind, *rest = name.split("/")
    if kind == "saliency":
        return bool(rest) and rest[-1] in _SIGNED and rest[0] not in _SQUARES
    return kind == "occlusion" or (kind in CAM_METHODS and rest[-1:] == ["signed"])


@dataclass(frozen=True, slots=True)
class Saliency:
    """Saliency map, which pixels the score depends on: float32 (N,H,W), named saliency or saliency/METHOD.

    `method` is vanilla (Simonyan et al., 2013), guided (Springenberg et al., 2014), deconvnet (Zeiler and Fergus,
    2014), gradient_x_input (Shrikumar et al., 2016), guided_grad_cam (Selvaraju et al., 2017), smooth_grad (Smilkov et
    al., 2017), smooth_grad_squared (Hooker et al., 2019), var_grad (Adebayo et al., 2018), integrated_gradients
    (Sundararajan et al., 2017) or xrai (Kapishnikov et al., 2019).

    `reduction` of the colour channels is abs_max, sum, mean, max or norm; another than abs_max ends the name. `signed`
    keeps all of them in RGB order, (N,H,W,3), and the name ends in /signed. The smooth ones take `samples` (default 25)
    noisy copies, σ = `noise` (default 0.15) × the image's range. Integrated gradients and XRAI take `steps` (default
    25) from each of `baselines`: colours, or Blur (default black and white). InvalidArgument for other values.
    """

    method: SaliencyMethod = "vanilla"
    signed: bool = False
    reduction: MapReduction = "abs_max"
    samples: int | None = None
    noise: float | None = None
    steps: int | None = None
    baselines: Sequence[Color | Blur] = ()
    output: Output = RAW

    def message(self) -> spec_pb2.Visualization:
        """Return the message; see Visualization."""
        method = _named(SALIENCY_METHODS, self.method, "method")
        kept = "none" if self.signed else self.reduction
        reduction = (
            _named(REDUCTIONS, kept, "reduction") if kept != "abs_max" else spec_pb2.CHANNEL_REDUCTION_UNSPECIFIED
        )
        options = spec_pb2.Saliency(
            method=method,
            reduction=reduction,
            samples=_positive(self.samples, "samples"),
            noise=self.noise,
            steps=_positive(self.steps, "steps"),
            baselines=[_baseline(baseline) for baseline in self.baselines],
        )
        return spec_pb2.Visualization(saliency=options, output=self.output.message())


@dataclass(frozen=True, slots=True)
class GradCAM:
    """Class activation map: float32 (N,h,w) as the layer, raw and not negative; named as its method.

    `method` is grad_cam (Selvaraju et al., 2017), grad_cam_plus_plus (Chattopadhay et al., 2018), hires_cam (Draelos
    and Carin, 2020), layer_cam (Jiang et al., 2021) or score_cam (Wang et al., 2020). InvalidArgument for another one.
    `layer` is a convolution or pooling layer, by default the model's last convolution; another one's name follows in
    the array's: grad_cam/LAYER. With `upsampled` (N,H,W) as the input, bilinear, and the name ends in /upsampled; with
    `signed` what speaks against the target is negative, and the name ends in /signed.
    """

    layer: str | None = None
    upsampled: bool = False
    method: CamMethod = "grad_cam"
    signed: bool = False
    output: Output = RAW

    def message(self) -> spec_pb2.Visualization:
        """Return the message; see Visualization."""
        size = spec_pb2.MAP_SIZE_INPUT if self.upsampled else spec_pb2.MAP_SIZE_LAYER
        method = _named(CAM_METHODS, self.method, "method")
        options = spec_pb2.GradCam(layer=self.layer or "", size=size, method=method, signed=self.signed)
        return spec_pb2.Visualization(grad_cam=options, output=self.output.message())


@dataclass(frozen=True, slots=True, init=False)
class Activations:
    """Outputs of layers as Keras computes them, of all channels or `channels`: float32 (N,…), named activations/LAYER.

    `reduction` of these channels is none, mean, max, norm, sum or abs_max, and ends the name: activations/LAYER/mean.
    """

    layers: tuple[str, ...]
    channels: tuple[int, ...]
    reduction: ChannelReduction
    output: Output

    def __init__(
        self,
        layers: Sequence[str] | str,
        channels: Sequence[int] | None = None,
        reduction: ChannelReduction = "none",
        output: Output = RAW,
    ) -> None:
        object.__setattr__(self, "layers", (layers,) if isinstance(layers, str) else tuple(layers))
        object.__setattr__(self, "channels", tuple(channels or ()))
        object.__setattr__(self, "reduction", reduction)
        object.__setattr__(self, "output", output)

    def message(self) -> spec_pb2.Visualization:
        """Return the message; see Visualization."""
        reduction = _named(REDUCTIONS, self.reduction, "reduction")
        options = spec_pb2.Activations(layers=self.layers, channels=self.channels, reduction=reduction)
        return spec_pb2.Visualization(activations=options, output=self.output.message())


@dataclass(frozen=True, slots=True)
class Occlusion:
    """Occlusion map (Zeiler and Fergus, 2014), the drop of the score where a square covers the image: float32 (N,H,W).

    Squares of `patch` pixels (default 32), moved by `stride` (default half of it), in `color` (default: what the
    model's preprocessing makes 0); each pixel is the mean over the squares that cover it. Named occlusion.
    """

    patch: int | None = None
    stride: int | None = None
    color: Color | None = None
    output: Output = RAW

    def message(self) -> spec_pb2.Visualization:
        """Return the message; see Visualization."""
        color = None if self.color is None else _color(self.color, "color")
        options = spec_pb2.Occlusion(
            patch=_positive(self.patch, "patch"), stride=_positive(self.stride, "stride"), color=color
        )
        return spec_pb2.Visualization(occlusion=options, output=self.output.message())


def visualization_messages(visualizations: Iterable[Visualization]) -> list[spec_pb2.Visualization]:
    """Return the messages of visualizations. InvalidArgument for anything else, and for one outside of a list."""
    if isinstance(visualizations, str | Mapping) or not isinstance(visualizations, Iterable):
        raise _not_a_visualization("visualizations", visualizations)
    return [_message(visualization, f"visualizations[{i}]") for i, visualization in enumerate(visualizations)]


def _message(visualization: Visualization, field: str) -> spec_pb2.Visualization:
    if isinstance(visualization, type) or not callable(getattr(visualization, "message", None)):
        raise _not_a_visualization(field, visualization)
    try:
        return visualization.message()
    except InvalidArgument:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{field} is {visualization!r}: {error}", field="visualizations") from error


def _not_a_visualization(field: str, given: object) -> InvalidArgument:
    what = f"the class {given.__name__}" if isinstance(given, type) else reprlib.repr(given)
    return InvalidArgument(
        f"{field} is {what}; allowed: a list of what is to be computed, such as [GradCAM()]", field="visualizations"
    )


def _named(table: Mapping[str, Any], name: str, field: str) -> Any:
    """Return the value for `name`. InvalidArgument lists the names there are."""
    if name not in table:
        raise InvalidArgument(f"no {field} {name!r}; allowed: {', '.join(table)}", field=field)
    return table[name]


def _positive(number: int | None, field: str) -> int:
    """Return the number, and 0, the wire's default, for None. InvalidArgument below 1."""
    if number is not None and number < 1:
        raise InvalidArgument(f"{field} is {number}; allowed: 1 or more", field=field)
    return number or 0


def _color(color: Color, field: str) -> spec_pb2.Color:
    values = _named(COLORS, color, field) if isinstance(color, str) else tuple(color)
    if len(values) != 3:
        raise InvalidArgument(f"{field} {color!r} is none; allowed: RGB, or {', '.join(COLORS)}", field=field)
    return spec_pb2.Color(red=values[0], green=values[1], blue=values[2])


def _baseline(baseline: Color | Blur) -> spec_pb2.Baseline:
    if isinstance(baseline, Blur):
        return spec_pb2.Baseline(blur=baseline.sigma)
    return spec_pb2.Baseline(color=_color(baseline, "baselines"))
