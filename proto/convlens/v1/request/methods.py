"""The visualization methods of a request, resolved against a model card: each array's name, shape and options.

Targets, output formats and sizes in bytes are plan.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from convlens.v1 import model_pb2, spec_pb2
from convlens.v1.enums import values_by_name
from convlens.v1.request.fields import check_range, enum_name, join_names, unknown_layer
from convlens.v1.status_error import SpecError

MAX_SAMPLES: Final = 1000
DEFAULT_SAMPLES: Final = 25
"""Noisy copies."""
MAX_STEPS: Final = 1000
DEFAULT_STEPS: Final = 25
"""Of a path."""
DEFAULT_NOISE: Final = 0.15
MAX_BASELINES: Final = 8
MAX_SQUARES: Final = 10_000

Color = tuple[float, float, float]
"""RGB in 0…255."""
Baseline = Color | float
"""A colour, or the σ in pixels that blurs the image itself."""
BLACK_AND_WHITE: Final[tuple[Baseline, ...]] = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@dataclass(frozen=True, slots=True)
class SaliencyMap:
    """A gradient with respect to the input."""

    method: str
    """vanilla, guided, deconvnet…"""
    reduction: str = "abs_max"
    """Of the colour channels; none: all of them are kept."""
    layer: str = ""
    """The layer of the class activation map that the gradient is multiplied by; empty without one."""
    samples: int = 0
    """Noisy copies; 0 for a method without them."""
    noise: float = 0.0
    """σ of their noise, as a share of the image's range."""
    steps: int = 0
    """Steps on the path from each baseline; 0 for a method without a path."""
    baselines: tuple[Baseline, ...] = ()
    """Where the paths start."""

    @property
    def passes(self) -> int:
        """Passes beyond the first, of each image."""
        return self.samples + len(self.baselines) * (self.steps + 1)


@dataclass(frozen=True, slots=True)
class ActivationMapping:
    """A class activation map of a layer."""

    method: str
    """grad_cam, hires_cam…"""
    layer: str
    upsampled: bool
    signed: bool = False
    """True: without the final ReLU."""
    passes: int = 0
    """Passes beyond the first, of each image, at most."""


@dataclass(frozen=True, slots=True)
class LayerOutput:
    """A layer's activations; of all channels when `channels` is empty."""

    layer: str
    channels: tuple[int, ...]
    reduction: str = "none"
    """Of the channels; none: all of them are kept."""
    method: str = "activations"
    passes: int = 0


@dataclass(frozen=True, slots=True)
class OcclusionMap:
    """How much the score falls where a square covers the image."""

    patch: int
    """The square's side, pixels."""
    stride: int
    color: Color | None
    """None: the colour that the model's preprocessing maps to 0."""
    passes: int
    """One for each square."""
    method: str = "occlusion"


Method = SaliencyMap | ActivationMapping | LayerOutput | OcclusionMap
"""Each has its `method` as the wire names it, and the `passes` it takes beyond the first, of each image."""


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A model card, its layers by name, and the layer whose units are scored."""

    card: model_pb2.Model
    layers: dict[str, model_pb2.Layer]
    scored_layer: str

    @property
    def spatial_layers(self) -> list[str]:
        """The layers of more than one position that precede the scored one."""
        below = list(self.layers)[: list(self.layers).index(self.scored_layer)]
        shapes = {name: tuple(self.layers[name].shape) for name in below}
        return [name for name, shape in shapes.items() if len(shape) == 3 and shape[0] * shape[1] > 1]


ResolvedArrays = Iterator[tuple[str, Method, tuple[int, ...]]]
"""Name, method, and shape without the axes of images and targets."""


def _resolve_saliency(visualization: spec_pb2.Visualization, field: str, model: ScoredModel) -> ResolvedArrays:
    options = visualization.saliency
    method = _method_name(spec_pb2.SaliencyMethod, options.method or spec_pb2.SALIENCY_METHOD_VANILLA, field, model)
    reduction = enum_name(spec_pb2.ChannelReduction, options.reduction, f"{field}.reduction") or "abs_max"
    if method == "xrai" and options.reduction:
        raise SpecError(f"{field}.reduction", "is set, but xrai has no channels left to reduce")
    layer = model.card.cam_layer if method == "guided_grad_cam" else ""
    if method == "guided_grad_cam" and layer not in model.spatial_layers:
        description = f"guided_grad_cam needs a convolution below {model.scored_layer!r}; there is none"
        raise SpecError(f"{field}.method", description)
    samples, noise = 0, 0.0
    if method in {"smooth_grad", "smooth_grad_squared", "var_grad"}:
        samples = check_range(options.samples or DEFAULT_SAMPLES, f"{field}.samples", MAX_SAMPLES)
        noise = options.noise if options.HasField("noise") else DEFAULT_NOISE
        if not 0 < noise <= 1:
            raise SpecError(f"{field}.noise", f"is {noise:g}; allowed: above 0, up to 1")
    elif options.samples or options.HasField("noise"):
        raise SpecError(f"{field}.samples", f"samples or noise are set, but {method} takes no noisy copies")
    steps, baselines = 0, tuple[Baseline, ...]()
    if method in {"integrated_gradients", "xrai"}:
        steps = check_range(options.steps or DEFAULT_STEPS, f"{field}.steps", MAX_STEPS)
        baselines = _baselines(options.baselines, f"{field}.baselines")
    elif options.steps or options.baselines:
        raise SpecError(f"{field}.steps", f"steps or baselines are set, but {method} follows no path")
    name = "saliency" + f"/{method}" * (method != "vanilla") + _SUFFIXES.get(reduction, f"/{reduction}")
    height, width, channels = model.card.input_shape
    shape = (height, width, channels) if reduction == "none" else (height, width)
    yield name, SaliencyMap(method, reduction, layer, samples, noise, steps, baselines), shape


_SUFFIXES: Final = {"abs_max": "", "none": "/signed"}
"""What a reduction adds to the name of a saliency map, where it is not its own name."""


def _resolve_grad_cam(visualization: spec_pb2.Visualization, field: str, model: ScoredModel) -> ResolvedArrays:
    options = visualization.grad_cam
    enum_name(spec_pb2.MapSize, options.size, f"{field}.size")
    method = _method_name(spec_pb2.CamMethod, options.method or spec_pb2.CAM_METHOD_GRAD_CAM, field, model)
    layer = options.layer or model.card.cam_layer
    if not layer:
        raise SpecError(
            f"{field}.layer", f"is needed: no convolution of {model.card.name!r} has more than one place; "
            f"allowed: {join_names(model.spatial_layers) or 'none'}",
        )  # fmt: skip
    if layer not in model.layers:
        raise unknown_layer(f"{field}.layer", layer, model.card.name, model.layers)
    if layer not in model.spatial_layers:
        raise SpecError(
            f"{field}.layer",
            f"layer {layer!r} has no more than one place, or is not below the scored layer {model.scored_layer!r}; "
            f"allowed: {join_names(model.spatial_layers)}",
        )
    if options.signed and method == "score_cam":
        raise SpecError(f"{field}.signed", "is set, but score_cam has positive weights alone")
    upsampled = options.size == spec_pb2.MAP_SIZE_INPUT
    name = method + (f"/{layer}" if layer != model.card.cam_layer else "")
    name += "/upsampled" * upsampled + "/signed" * options.signed
    shape = tuple(model.card.input_shape if upsampled else model.layers[layer].shape)
    passes = model.layers[layer].shape[-1] if method == "score_cam" else 0
    yield name, ActivationMapping(method, layer, upsampled, options.signed, passes), shape[:2]


def _resolve_activations(visualization: spec_pb2.Visualization, field: str, model: ScoredModel) -> ResolvedArrays:
    options = visualization.activations
    channels = tuple(options.channels)
    reduction = enum_name(spec_pb2.ChannelReduction, options.reduction, f"{field}.reduction") or "none"
    if not options.layers:
        raise SpecError(f"{field}.layers", f"is empty; allowed: {join_names(model.layers)}")
    if len(set(channels)) < len(channels):
        raise SpecError(f"{field}.channels", "names a channel twice")
    for i, layer in enumerate(options.layers):
        if layer not in model.layers:
            raise unknown_layer(f"{field}.layers[{i}]", layer, model.card.name, model.layers)
        shape = tuple(model.layers[layer].shape)
        for k, channel in enumerate(channels):
            if not 0 <= channel < shape[-1]:
                raise SpecError(
                    f"{field}.channels[{k}]", f"is {channel}, but layer {layer!r} has channels 0…{shape[-1] - 1}"
                )
        kept = () if reduction != "none" else (len(channels) or shape[-1],)
        name = f"activations/{layer}" + f"/{reduction}" * (reduction != "none")
        yield name, LayerOutput(layer, channels, reduction), (*shape[:-1], *kept)


def _resolve_occlusion(visualization: spec_pb2.Visualization, field: str, model: ScoredModel) -> ResolvedArrays:
    options = visualization.occlusion
    height, width, _ = model.card.input_shape
    patch = check_range(options.patch or min(32, height, width), f"{field}.patch", min(height, width))
    stride = check_range(options.stride or max(1, patch // 2), f"{field}.stride", patch)
    squares = (-(-(height - patch) // stride) + 1) * (-(-(width - patch) // stride) + 1)
    if squares > MAX_SQUARES:
        raise SpecError(f"{field}.stride", f"makes {squares} squares an image; allowed: {MAX_SQUARES}")
    color = _color(options.color, f"{field}.color") if options.HasField("color") else None
    yield "occlusion", OcclusionMap(patch, stride, color, squares), (height, width)


METHODS: Final[dict[str, Callable[[spec_pb2.Visualization, str, ScoredModel], ResolvedArrays]]] = {
    "saliency": _resolve_saliency,
    "grad_cam": _resolve_grad_cam,
    "activations": _resolve_activations,
    "occlusion": _resolve_occlusion,
}
"""By the name of the method's field in Visualization; each yields the arrays that the field requests."""


def _baselines(messages: Sequence[spec_pb2.Baseline], field: str) -> tuple[Baseline, ...]:
    if len(messages) > MAX_BASELINES:
        raise SpecError(field, f"has {len(messages)}; allowed: 1…{MAX_BASELINES}")
    baselines = tuple(_baseline(message, f"{field}[{i}]") for i, message in enumerate(messages)) or BLACK_AND_WHITE
    if len(set(baselines)) < len(baselines):
        raise SpecError(field, "names a baseline twice")
    return baselines


def _baseline(message: spec_pb2.Baseline, field: str) -> Baseline:
    kind = message.WhichOneof("kind")
    if kind == "color":
        return _color(message.color, f"{field}.color")
    if kind == "blur":
        if not 0.5 <= message.blur <= 64:
            raise SpecError(f"{field}.blur", f"is {message.blur:g}; allowed: 0.5…64 pixels")
        return message.blur
    raise SpecError(field, "is empty; allowed: color, blur")


def _color(message: spec_pb2.Color, field: str) -> Color:
    color = (message.red, message.green, message.blue)
    if not all(0 <= value <= 255 for value in color):
        raise SpecError(field, f"is {color}; allowed: each in 0…255")
    return color


def _method_name(enum: Any, value: int, field: str, model: ScoredModel) -> str:
    """Return a method's short name. Raises SpecError where the model's workers do not compute it."""
    name = enum_name(enum, value, f"{field}.method")
    if name in model.card.unavailable_methods:
        raise SpecError(f"{field}.method", f"{name}: {model.card.unavailable_methods[name]}")
    if name not in model.card.methods:
        available = [method for method in values_by_name(enum) if method in model.card.methods]
        raise SpecError(
            f"{field}.method",
            f"is {name}, which the workers of {model.card.name!r} lack; allowed: {', '.join(available)}",
        )
    return name
