"""JobSpec + model card → the plan of a job, or a SpecError that names the field which the model cannot grant.

A plan says which arrays a result has, of which names, shapes and formats, for which targets, and at what cost. The
server checks a request by it before anything is queued, the worker computes and names the result by it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from convlens.v1 import model_pb2, spec_pb2, tensor_pb2
from convlens.v1.image_formats import LARGE_PIXELS
from convlens.v1.request.fields import check_range, enum_name, unknown_layer
from convlens.v1.request.methods import METHODS, ActivationMapping, LayerOutput, Method, SaliencyMap, ScoredModel
from convlens.v1.request.targets import Units, resolve_targets
from convlens.v1.status_error import SpecError
from convlens.v1.tensors import OUTPUT_DATATYPES, byte_size

FLOAT_BYTES: Final = 4
LARGE_BYTES: Final = 16 << 20
"""Bytes of arrays that take about as long to make as a pass of an image, or as LARGE_PIXELS to decode."""
MAX_PREDICTIONS: Final = 1000
DEFAULT_PREDICTIONS: Final = 5
MAX_SIDE: Final = 4096
"""Pixels that a map may be resized to."""
PASSES_AT_ONCE: Final = 3
"""Of a job with many variants: two under way, and one whose gradients are being summed."""
MAX_PLANS: Final = 256
"""Plans that are cached: programs send the same request, but for the images, again and again."""
MAX_SPEC_BYTES: Final = 4096
"""Bytes of a serialized spec whose plan is cached, at most."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The format of an array of the result, applied in this order."""

    size: tuple[int, int] | None = None
    """(height, width) to resize to; None: as computed."""
    normalization: str = "none"
    """none, min_max or max_abs, of each map by itself."""
    datatype: tensor_pb2.DataType.ValueType = tensor_pb2.DATA_TYPE_FP32


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One array of a result."""

    name: str
    method: Method
    shape: tuple[int, ...]
    """(N,…), or (N,T,…) where there is a target axis."""
    targeted: bool
    """True for a map that explains a target."""
    format: OutputFormat = OutputFormat()
    computed_bytes: int = 0
    """Of the float32 arrays that the worker holds to make it, before they are formatted."""
    copied_bytes: int = 0
    """That resizing takes besides: a copy of one map, of all its channels."""

    @property
    def byte_size(self) -> int:
        """Bytes of its elements, in its datatype."""
        return byte_size(self.format.datatype, self.shape)

    @property
    def channels(self) -> tuple[int, ...]:
        """The layer's channels that were selected; empty for all of them."""
        return self.method.channels if isinstance(self.method, LayerOutput) and self.method.reduction == "none" else ()


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What a job computes on the model that it was resolved against."""

    tensors: tuple[PlannedTensor, ...]
    targets: tuple[tuple[int, ...], ...]
    """(N,T): a unit's index, or a code of targets.py."""
    target_axis: bool
    """True when the maps have a target axis behind the batch axis."""
    scored_layer: str
    """The layer whose units are targets; empty: the model's own logits."""
    predictions: int
    """How many best classes to report."""
    variant_bytes: int = 0
    """Of the gradients of the passes under way, for methods that look at many variants of each image."""

    @property
    def result_bytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(tensor.byte_size for tensor in self.tensors)

    @property
    def working_bytes(self) -> int:
        """Bytes that a worker holds at once to make the result, but for some slices; arrays are formatted in turn."""
        computed = sum(tensor.computed_bytes for tensor in self.tensors)
        return self.variant_bytes + computed + max((tensor.copied_bytes for tensor in self.tensors), default=0)

    @property
    def header_bytes(self) -> int:
        """An estimate of what the result's header takes at most."""
        explained = sum(len(tensor.name) + 100 for tensor in self.tensors if tensor.targeted)
        image = 64 * self.predictions + len(self.targets[0]) * explained
        maps = len(self.targets) * len(self.targets[0])
        specs = sum(100 + 8 * maps + 5 * len(tensor.channels) for tensor in self.tensors)
        return 512 + len(self.targets) * image + specs

    @property
    def passes(self) -> int:
        """Images that pass through the model: the job's own, and the variants of them that methods look at."""
        return len(self.targets) * (1 + sum(tensor.method.passes for tensor in self.tensors))

    def cost(self, pixels: int) -> int:
        """Return the cost in passes of an image, with `pixels` to decode; large jobs cost more than a pass an image."""
        return self.passes + pixels // LARGE_PIXELS + max(self.working_bytes, self.result_bytes) // LARGE_BYTES


class _Card:
    """A model card as a key of the cache: compared by identity, so it must not change."""

    def __init__(self, model: model_pb2.Model) -> None:
        self.model = model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Card) and other.model is self.model

    def __hash__(self) -> int:
        return id(self.model)


def resolve_serialized(spec: bytes, card: model_pb2.Model) -> JobPlan:
    """Return the plan of a serialized JobSpec as resolve() does; those of small specs used last are cached."""
    if len(spec) > MAX_SPEC_BYTES:
        return resolve(spec_pb2.JobSpec.FromString(spec), card)
    return _resolve_cached(spec, _Card(card))


@functools.lru_cache(MAX_PLANS)
def _resolve_cached(spec: bytes, card: _Card) -> JobPlan:
    return resolve(spec_pb2.JobSpec.FromString(spec), card.model)


def resolve(spec: spec_pb2.JobSpec, card: model_pb2.Model) -> JobPlan:
    """Return the plan of `spec` on the model of `card`. Raises SpecError for the first field at fault."""
    layers = {layer.name: layer for layer in card.layers}
    if spec.scored_layer and spec.scored_layer not in layers:
        raise unknown_layer("spec.scored_layer", spec.scored_layer, card.name, layers)
    inner_layer = spec.scored_layer if spec.scored_layer != card.score_layer else ""
    scored_layer = inner_layer or card.score_layer
    outputs = layers[scored_layer].shape[-1]
    units = (not inner_layer and card.classes) or outputs
    if units != outputs and any(target.WhichOneof("kind") == "all_units" for target in spec.targets):
        raise SpecError("spec.targets", "all_units is the mean of two classes' opposite scores, 0 for any image")
    targets, has_axis = resolve_targets(spec, Units(units, card, inner_layer))
    leading = (len(spec.images), len(targets[0])) if has_axis else (len(spec.images),)
    tensors = _tensors(spec, ScoredModel(card, layers, scored_layer), leading)
    return JobPlan(
        tuple(tensors.values()),
        targets,
        has_axis,
        inner_layer,
        _predictions(spec, tensors.values(), inner_layer),
        _variant_bytes(tensors.values(), len(targets[0]), card),
    )


def _tensors(spec: spec_pb2.JobSpec, model: ScoredModel, leading: tuple[int, ...]) -> dict[str, PlannedTensor]:
    """Return the arrays of all visualizations by name; those with targets have the `leading` axes."""
    tensors: dict[str, PlannedTensor] = {}
    for i, visualization in enumerate(spec.visualizations):
        field = f"spec.visualizations[{i}]"
        kind = visualization.WhichOneof("method")
        if kind is None:
            raise SpecError(field, f"no method is set; allowed: {', '.join(METHODS)}")
        targeted = kind != "activations"
        lead = leading if targeted else leading[:1]
        for name, method, shape in METHODS[kind](visualization, f"{field}.{kind}", model):
            if name in tensors:
                raise SpecError(field, f"requests {name!r} again; every array can be requested once")
            output = _output_format(visualization.output, f"{field}.output")
            if output.size and isinstance(method, LayerOutput) and len(model.layers[method.layer].shape) != 3:
                raise SpecError(f"{field}.output.height", f"is set, but {name!r} has no extent in space")
            resized = (*output.size, *shape[2:]) if output.size else shape
            computed = _computed_bytes(method, (*lead, *shape), leading[0], model.layers)
            copied = FLOAT_BYTES * math.prod(shape) if output.size else 0
            tensors[name] = PlannedTensor(name, method, (*lead, *resized), targeted, output, computed, copied)
    return tensors


def _computed_bytes(method: Method, shape: Sequence[int], images: int, layers: Mapping[str, model_pb2.Layer]) -> int:
    """Return the bytes of an array as it is computed, and for score_cam of the layer's activations, which it reads."""
    size = math.prod(shape)
    if isinstance(method, ActivationMapping) and method.passes:
        size += images * math.prod(layers[method.layer].shape)
    return FLOAT_BYTES * size


def _variant_bytes(tensors: Collection[PlannedTensor], targets: int, card: model_pb2.Model) -> int:
    """Return the bytes of the variants' gradients in the passes under way."""
    if not any(isinstance(tensor.method, SaliencyMap) and tensor.method.passes for tensor in tensors):
        return 0
    return PASSES_AT_ONCE * card.max_batch_size * targets * math.prod(card.input_shape) * FLOAT_BYTES


def _output_format(output: spec_pb2.Output, field: str) -> OutputFormat:
    normalization = enum_name(spec_pb2.Normalization, output.normalization, f"{field}.normalization") or "none"
    datatype = output.datatype or tensor_pb2.DATA_TYPE_FP32
    if datatype not in OUTPUT_DATATYPES:
        names = ", ".join(map(tensor_pb2.DataType.Name, OUTPUT_DATATYPES))
        raise SpecError(f"{field}.datatype", f"is {datatype}; allowed: {names}")
    if not output.height and not output.width:
        return OutputFormat(None, normalization, datatype)
    height = check_range(output.height, f"{field}.height", MAX_SIDE)
    width = check_range(output.width, f"{field}.width", MAX_SIDE)
    return OutputFormat((height, width), normalization, datatype)


def _predictions(spec: spec_pb2.JobSpec, tensors: Collection[PlannedTensor], inner_layer: str) -> int:
    """Return how many best classes to report: as many as requested, else some where the pass reaches the logits."""
    if spec.HasField("predictions"):
        if not 0 <= spec.predictions <= MAX_PREDICTIONS:
            raise SpecError("spec.predictions", f"is {spec.predictions}; allowed: 0…{MAX_PREDICTIONS}")
        return spec.predictions
    reaches_logits = any(tensor.targeted for tensor in tensors) and not inner_layer
    return DEFAULT_PREDICTIONS if reaches_logits else 0
