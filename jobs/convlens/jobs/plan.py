"""What a job asks of a model, resolved: which arrays, of which names and shapes, for which targets.

Shared by the front, which refuses with it what the model cannot do before anything is queued, and by the worker, which
names and shapes its results with it. Knows the wire's messages and a model card; no Redis, no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from convlens.v1 import codec, model_pb2, spec_pb2, tensor_pb2

ALL_UNITS: Final = -1
"""The target that is the mean over all units."""
PREDICTED: Final = -2
"""The unit of the highest score; -3 is the second highest, and so on."""
MAX_PREDICTIONS: Final = 1000
DEFAULT_PREDICTIONS: Final = 5
MAX_SAMPLES: Final = 1000
MAX_BASELINES: Final = 8
MAX_SQUARES: Final = 10_000
MAX_SIDE: Final = 4096


class SpecError(ValueError):
    """A field of the request that cannot be granted."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


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
    """What is kept of the colour channels; none: all of them."""
    layer: str = ""
    """Of the class activation map that the gradient is multiplied by; empty without one."""
    samples: int = 0
    """Noisy copies; 0 for a method without them."""
    noise: float = 0.0
    """Their σ as a share of the image's range."""
    steps: int = 0
    """Steps of a path; 0 for a method without one."""
    baselines: tuple[Baseline, ...] = ()
    """Where the paths begin."""


@dataclass(frozen=True, slots=True)
class ActivationMapping:
    """A class activation map of a layer."""

    method: str
    """grad_cam, hires_cam…"""
    layer: str
    upsampled: bool
    signed: bool = False
    """True: without the last ReLU."""


@dataclass(frozen=True, slots=True)
class LayerOutput:
    """A layer's activations; of all channels when `channels` is empty."""

    layer: str
    channels: tuple[int, ...]
    reduction: str = "none"
    """What is kept of the channels; none: all of them."""
    method: str = "activations"


@dataclass(frozen=True, slots=True)
class OcclusionMap:
    """What the score loses where a square covers the image."""

    patch: int
    """The square's side, pixels."""
    stride: int
    color: Color | None
    """None: the one that the model's preprocessing makes 0."""
    method: str = "occlusion"


Method = SaliencyMap | ActivationMapping | LayerOutput | OcclusionMap


@dataclass(frozen=True, slots=True)
class Form:
    """The form an array is given in, applied in this order."""

    size: tuple[int, int] | None = None
    """(height, width) to resize to."""
    normalization: str = "none"
    """none, min_max or max_abs, each map by itself."""
    datatype: tensor_pb2.DataType.ValueType = tensor_pb2.DATA_TYPE_FP32


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One array of a result."""

    name: str
    method: Method
    shape: tuple[int, ...]
    """With the batch axis, and the target axis where there is one."""
    targeted: bool
    """True for a map that explains a target."""
    form: Form = Form()

    @property
    def byte_size(self) -> int:
        """Of its elements, in its datatype."""
        return codec.byte_size(self.form.datatype, self.shape)

    @property
    def channels(self) -> tuple[int, ...]:
        """The layer's channels that were asked for; none when it is all of them."""
        return self.method.channels if isinstance(self.method, LayerOutput) and self.method.reduction == "none" else ()


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job, resolved against its model's card."""

    tensors: tuple[PlannedTensor, ...]
    targets: tuple[tuple[int, ...], ...]
    """(N,T): a unit's index, ALL_UNITS, or PREDICTED and below."""
    target_axis: bool
    """True when the maps have a target axis behind the batch axis."""
    scored_layer: str
    """Empty: the model's logits."""
    predictions: int
    """How many best classes to report."""

    @property
    def result_bytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(tensor.byte_size for tensor in self.tensors)


def make_plan(spec: spec_pb2.JobSpec, card: model_pb2.Model) -> JobPlan:
    """The plan of `spec` on the model of `card`. Raises SpecError naming the first field at fault."""
    layers = {layer.name: layer for layer in card.layers}
    if spec.scored_layer and spec.scored_layer not in layers:
        raise _no_layer("spec.scored_layer", spec.scored_layer, card.name, layers)
    inner = bool(spec.scored_layer) and spec.scored_layer != card.score_layer
    units = layers[spec.scored_layer or card.score_layer].shape[-1]
    targets, axis = _targets(spec, units)
    model = _Model(card, layers, spec.scored_layer if inner else card.score_layer)
    lead = (len(spec.images), len(targets[0])) if axis else (len(spec.images),)
    tensors: dict[str, PlannedTensor] = {}
    for i, visualization in enumerate(spec.visualizations):
        field = f"spec.visualizations[{i}]"
        kind = visualization.WhichOneof("method")
        if kind is None:
            raise SpecError(field, f"no method is set; allowed: {', '.join(_METHODS)}")
        targeted = kind != "activations"
        for name, method, shape in _METHODS[kind](visualization, f"{field}.{kind}", model):
            if name in tensors:
                raise SpecError(field, f"asks for {name!r} again; every array is asked for once")
            form = _form(visualization.output, f"{field}.output")
            if form.size and isinstance(method, LayerOutput) and len(layers[method.layer].shape) != 3:
                raise SpecError(f"{field}.output.height", f"is set, but {name!r} has no extent in space")
            placed = (*form.size, *shape[2:]) if form.size else shape
            tensors[name] = PlannedTensor(name, method, (*(lead if targeted else lead[:1]), *placed), targeted, form)
    return JobPlan(
        tuple(tensors.values()), targets, axis, spec.scored_layer if inner else "", _predictions(spec, tensors, inner)
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """A card, with its layers by name and the layer that is scored."""

    card: model_pb2.Model
    layers: dict[str, model_pb2.Layer]
    scored: str

    @property
    def spatial(self) -> list[str]:
        """The layers with an extent in space that the data pass before the scored one."""
        below = list(self.layers)[: list(self.layers).index(self.scored)]
        return [name for name in below if len(self.layers[name].shape) == 3]


_Planned = Iterator[tuple[str, Method, tuple[int, ...]]]


def _saliency(visualization: spec_pb2.Visualization, field: str, model: _Model) -> _Planned:
    options = visualization.saliency
    method = _method(spec_pb2.SaliencyMethod, options.method or spec_pb2.SALIENCY_METHOD_VANILLA, field, model)
    reduction = _name(spec_pb2.ChannelReduction, options.reduction, f"{field}.reduction") or "abs_max"
    if method == "xrai" and options.reduction:
        raise SpecError(f"{field}.reduction", "is set, but xrai has no channels left to reduce")
    layer = model.card.cam_layer if method == "guided_grad_cam" else ""
    if method == "guided_grad_cam" and layer not in model.spatial:
        raise SpecError(f"{field}.method", f"guided_grad_cam needs a convolution below {model.scored!r}; there is none")
    samples, noise = 0, 0.0
    if method in {"smooth_grad", "smooth_grad_squared", "var_grad"}:
        samples = _count(options.samples or 25, f"{field}.samples", MAX_SAMPLES)
        noise = options.noise if options.HasField("noise") else 0.15
        if not 0 < noise <= 1:
            raise SpecError(f"{field}.noise", f"is {noise:g}; allowed: above 0, up to 1")
    elif options.samples or options.HasField("noise"):
        raise SpecError(f"{field}.samples", f"samples or noise are set, but {method} takes no noisy copies")
    steps, baselines = 0, tuple[Baseline, ...]()
    if method in {"integrated_gradients", "xrai"}:
        steps = _count(options.steps or 25, f"{field}.steps", MAX_SAMPLES)
        baselines = _baselines(options.baselines, f"{field}.baselines")
    elif options.steps or options.baselines:
        raise SpecError(f"{field}.steps", f"steps or baselines are set, but {method} follows no path")
    name = "saliency" + f"/{method}" * (method != "vanilla") + _SUFFIXES.get(reduction, f"/{reduction}")
    height, width, channels = model.card.input_shape
    shape = (height, width, channels) if reduction == "none" else (height, width)
    yield name, SaliencyMap(method, reduction, layer, samples, noise, steps, baselines), shape


_SUFFIXES: Final = {"abs_max": "", "none": "/signed"}
"""What a reduction adds to the name of a saliency map, where it is not its own name."""


def _grad_cam(visualization: spec_pb2.Visualization, field: str, model: _Model) -> _Planned:
    options = visualization.grad_cam
    _name(spec_pb2.MapSize, options.size, f"{field}.size")
    method = _method(spec_pb2.CamMethod, options.method or spec_pb2.CAM_METHOD_GRAD_CAM, field, model)
    layer = options.layer or model.card.cam_layer
    if layer not in model.layers:
        raise _no_layer(f"{field}.layer", layer, model.card.name, model.layers)
    if layer not in model.spatial:
        raise SpecError(
            f"{field}.layer",
            f"layer {layer!r} has no extent in space, or is not below the scored layer {model.scored!r}; "
            f"allowed: {_listed(model.spatial)}",
        )
    if options.signed and method == "score_cam":
        raise SpecError(f"{field}.signed", "is set, but score_cam has positive weights alone")
    upsampled = options.size == spec_pb2.MAP_SIZE_INPUT
    name = method + (f"/{layer}" if layer != model.card.cam_layer else "")
    name += "/upsampled" * upsampled + "/signed" * options.signed
    shape = tuple(model.card.input_shape if upsampled else model.layers[layer].shape)
    yield name, ActivationMapping(method, layer, upsampled, options.signed), shape[:2]


def _activations(visualization: spec_pb2.Visualization, field: str, model: _Model) -> _Planned:
    options = visualization.activations
    channels = tuple(options.channels)
    reduction = _name(spec_pb2.ChannelReduction, options.reduction, f"{field}.reduction") or "none"
    if not options.layers:
        raise SpecError(f"{field}.layers", f"is empty; allowed: {_listed(model.layers)}")
    if len(set(channels)) < len(channels):
        raise SpecError(f"{field}.channels", "names a channel twice")
    for i, layer in enumerate(options.layers):
        if layer not in model.layers:
            raise _no_layer(f"{field}.layers[{i}]", layer, model.card.name, model.layers)
        shape = tuple(model.layers[layer].shape)
        for k, channel in enumerate(channels):
            if not 0 <= channel < shape[-1]:
                raise SpecError(
                    f"{field}.channels[{k}]", f"is {channel}, but layer {layer!r} has channels 0…{shape[-1] - 1}"
                )
        kept = () if reduction != "none" else (len(channels) or shape[-1],)
        name = f"activations/{layer}" + f"/{reduction}" * (reduction != "none")
        yield name, LayerOutput(layer, channels, reduction), (*shape[:-1], *kept)


def _occlusion(visualization: spec_pb2.Visualization, field: str, model: _Model) -> _Planned:
    options = visualization.occlusion
    height, width, _ = model.card.input_shape
    patch = _count(options.patch or min(32, height, width), f"{field}.patch", min(height, width))
    stride = _count(options.stride or max(1, patch // 2), f"{field}.stride", patch)
    squares = (-(-(height - patch) // stride) + 1) * (-(-(width - patch) // stride) + 1)
    if squares > MAX_SQUARES:
        raise SpecError(f"{field}.stride", f"makes {squares} squares an image; allowed: {MAX_SQUARES}")
    color = _color(options.color, f"{field}.color") if options.HasField("color") else None
    yield "occlusion", OcclusionMap(patch, stride, color), (height, width)


_METHODS: Final[dict[str, Callable[[spec_pb2.Visualization, str, _Model], _Planned]]] = {
    "saliency": _saliency,
    "grad_cam": _grad_cam,
    "activations": _activations,
    "occlusion": _occlusion,
}
"""One row a method: the name of its field in Visualization, and what arrays it gives."""


def _form(output: spec_pb2.Output, field: str) -> Form:
    """The form that arrays are to have."""
    normalization = _name(spec_pb2.Normalization, output.normalization, f"{field}.normalization") or "none"
    datatype = output.datatype or tensor_pb2.DATA_TYPE_FP32
    allowed = (tensor_pb2.DATA_TYPE_FP32, tensor_pb2.DATA_TYPE_FP16, tensor_pb2.DATA_TYPE_UINT8)
    if datatype not in allowed:
        names = ", ".join(map(tensor_pb2.DataType.Name, allowed))
        raise SpecError(f"{field}.datatype", f"is {datatype}; allowed: {names}")
    if not output.height and not output.width:
        return Form(None, normalization, datatype)
    sides = _count(output.height, f"{field}.height", MAX_SIDE), _count(output.width, f"{field}.width", MAX_SIDE)
    return Form(sides, normalization, datatype)


def _baselines(messages: Sequence[spec_pb2.Baseline], field: str) -> tuple[Baseline, ...]:
    if len(messages) > MAX_BASELINES:
        raise SpecError(field, f"has {len(messages)}; allowed: 1…{MAX_BASELINES}")
    found = tuple(_baseline(message, f"{field}[{i}]") for i, message in enumerate(messages)) or BLACK_AND_WHITE
    if len(set(found)) < len(found):
        raise SpecError(field, "names a baseline twice")
    return found


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


def _count(number: int, field: str, most: int) -> int:
    if not 1 <= number <= most:
        raise SpecError(field, f"is {number}; allowed: 1…{most}")
    return number


def _method(enum: Any, value: int, field: str, model: _Model) -> str:
    """The name of a method that the model's workers have."""
    name = _name(enum, value, f"{field}.method")
    if name not in model.card.methods:
        offered = [it for it in map(_lower(enum), enum.keys()[1:]) if it in model.card.methods]
        raise SpecError(
            f"{field}.method",
            f"is {name}, which the workers of {model.card.name!r} lack; allowed: {', '.join(offered)}",
        )
    return name


def _targets(spec: spec_pb2.JobSpec, units: int) -> tuple[tuple[tuple[int, ...], ...], bool]:
    """The targets as (N,T) codes, and whether the maps have a target axis."""
    images = len(spec.images)
    if len(spec.targets) not in {0, 1, images}:
        raise SpecError(
            "spec.targets", f"has {len(spec.targets)} for {images} images; allowed: none, one, or one an image"
        )
    given = [_codes(target, f"spec.targets[{i}]", units) for i, target in enumerate(spec.targets)]
    given = given or [((PREDICTED,), False)]
    for i, (codes, axis) in enumerate(given):
        if axis != given[0][1] or len(codes) != len(given[0][0]):
            raise SpecError(f"spec.targets[{i}]", "has not as many units as the first image's target; all must have")
    rows = tuple(codes for codes, _ in given)
    return (rows * images if len(rows) == 1 else rows), given[0][1]


def _codes(target: spec_pb2.Target, field: str, units: int) -> tuple[tuple[int, ...], bool]:
    """One image's targets as codes, and whether they were given as a list."""
    kind = target.WhichOneof("kind")
    if kind == "index":
        return (_unit(target.index, f"{field}.index", units),), False
    if kind == "indices":
        values = target.indices.values
        if not values or len(set(values)) < len(values):
            raise SpecError(f"{field}.indices", "is empty or names a unit twice")
        return tuple(_unit(v, f"{field}.indices.values[{i}]", units) for i, v in enumerate(values)), True
    if kind == "top_k":
        if not 1 <= target.top_k <= units:
            raise SpecError(f"{field}.top_k", f"is {target.top_k}; allowed: 1…{units}")
        return tuple(PREDICTED - rank for rank in range(target.top_k)), True
    return ((ALL_UNITS,) if kind == "all_units" else (PREDICTED,)), False


def _unit(index: int, field: str, units: int) -> int:
    if not 0 <= index < units:
        raise SpecError(field, f"is {index}; allowed: 0…{units - 1}")
    return index


def _predictions(spec: spec_pb2.JobSpec, tensors: dict[str, PlannedTensor], inner: bool) -> int:
    """How many best classes: as asked, else as many as come for free."""
    if spec.HasField("predictions"):
        if not 0 <= spec.predictions <= MAX_PREDICTIONS:
            raise SpecError("spec.predictions", f"is {spec.predictions}; allowed: 0…{MAX_PREDICTIONS}")
        return spec.predictions
    reached = any(tensor.targeted for tensor in tensors.values()) and not inner
    return DEFAULT_PREDICTIONS if reached else 0


def _name(enum: Any, value: int, field: str) -> str:
    """The name of an enum's value as the house has it: SALIENCY_METHOD_GUIDED is guided, unspecified is empty.

    SpecError for a number that the enum has no name for (a newer client's, perhaps).
    """
    if value not in enum.values():
        raise SpecError(field, f"is {value}; allowed: {', '.join(enum.keys()[1:])}")
    return _lower(enum)(enum.Name(value)) if value else ""


def _lower(enum: Any) -> Callable[[str], str]:
    """SALIENCY_METHOD_GUIDED to guided."""
    prefix = enum.keys()[0].removesuffix("UNSPECIFIED")
    return lambda name: name.removeprefix(prefix).lower()


def _no_layer(field: str, layer: str, model: str, layers: Sequence[str] | dict[str, model_pb2.Layer]) -> SpecError:
    return SpecError(field, f"no layer {layer!r} in model {model!r}; allowed: {_listed(layers)}")


def _listed(names: Sequence[str] | dict[str, model_pb2.Layer]) -> str:
    """Names for an error message, not endlessly many."""
    shown = list(names)[:40]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")
