"""What a job asks of a model, resolved: which arrays, of which names and shapes, for which targets.

Shared by the front, which refuses with it what the model cannot do before anything is queued, and by the worker, which
names and shapes its results with it. Knows the wire's messages and a model card; no Redis, no TensorFlow.
"""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from convlens.jobs.request.fields import SpecError, counted, named, no_layer
from convlens.jobs.request.labels import Labels
from convlens.jobs.request.methods import METHODS, ActivationMapping, LayerOutput, Method, SaliencyMap, Served
from convlens.v1 import model_pb2, spec_pb2, tensor_pb2, tensors
from convlens.v1.image_formats import LARGE_PIXELS

ALL_UNITS: Final = -1
"""The target that is the mean over all units."""
PREDICTED: Final = -2
"""The unit of the highest score; -3 is the second highest, and so on."""
MAX_PREDICTIONS: Final = 1000
DEFAULT_PREDICTIONS: Final = 5
MAX_SIDE: Final = 4096
FLOAT_BYTES: Final = 4
LARGE_BYTES: Final = 16 << 20
"""Of a result: to make so many takes about as long as a pass of an image, as it does to decode LARGE_PIXELS."""
PASSES_HELD: Final = 3
"""Of a job with many variants: two under way, one being gathered."""
REMEMBERED: Final = 256
"""Plans."""
SMALL_SPEC: Final = 4096
"""Bytes of a serialized spec whose plan is remembered, at most."""


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
    computed_bytes: int = 0
    """That the worker holds to make it: the float32 arrays as the engine gives them, before they get their form."""
    copied_bytes: int = 0
    """That resizing it takes besides: a copy of one map, of all its channels."""

    @property
    def byte_size(self) -> int:
        """Of its elements, in its datatype."""
        return tensors.byte_size(self.form.datatype, self.shape)

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
    variant_bytes: int = 0
    """Of what passes under way give of variants, for methods that look at many of each image."""

    @property
    def result_bytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(tensor.byte_size for tensor in self.tensors)

    @property
    def working_bytes(self) -> int:
        """Bytes that a worker holds at once to make the result, beside some slices; one array at a time is formed."""
        computed = sum(tensor.computed_bytes for tensor in self.tensors)
        return self.variant_bytes + computed + max((tensor.copied_bytes for tensor in self.tensors), default=0)

    @property
    def header_bytes(self) -> int:
        """About as many as the header of the result takes at most."""
        explained = sum(len(tensor.name) + 100 for tensor in self.tensors if tensor.targeted)
        image = 64 * self.predictions + len(self.targets[0]) * explained
        maps = len(self.targets) * len(self.targets[0])
        return 512 + len(self.targets) * image + sum(100 + 8 * maps + 5 * len(t.channels) for t in self.tensors)

    def cost(self, pixels: int) -> int:
        """What the job takes, in passes of an image, with `pixels` to decode; it is large above its images' number."""
        return self.passes + pixels // LARGE_PIXELS + max(self.working_bytes, self.result_bytes) // LARGE_BYTES

    @property
    def passes(self) -> int:
        """Images that pass through the model: the job's own, and the variants of them that methods look at."""
        return len(self.targets) * (1 + sum(tensor.method.passes for tensor in self.tensors))


class Plans:
    """Plans of jobs that were granted, since programs ask for the same again and again. For any thread.

    Each is known by the digest of its spec and by its card, which must not change afterwards. Only those of small specs
    are kept, the latest REMEMBERED of them.
    """

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[bytes, int], tuple[model_pb2.Model, JobPlan]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, spec: bytes, card: model_pb2.Model) -> JobPlan | None:
        """The plan kept for a serialized spec and just this card."""
        key = _key(spec, card)
        with self._lock:
            found = self._plans.get(key)
            if found:
                self._plans.move_to_end(key)
            return found[1] if found else None

    def put(self, spec: bytes, card: model_pb2.Model, plan: JobPlan) -> None:
        """Keeps the plan of a job that was granted."""
        if len(spec) > SMALL_SPEC:
            return
        with self._lock:
            self._plans[_key(spec, card)] = card, plan  # a card that is held here has an id that no other one gets
            if len(self._plans) > REMEMBERED:
                self._plans.popitem(last=False)

    def planned(self, spec: bytes, card: model_pb2.Model) -> JobPlan:
        """The plan of a job that was granted: what make_plan() makes of its serialized spec."""
        plan = self.get(spec, card)
        if plan is None:
            plan = make_plan(spec_pb2.JobSpec.FromString(spec), card)
            self.put(spec, card, plan)
        return plan


def _key(spec: bytes, card: model_pb2.Model) -> tuple[bytes, int]:
    return hashlib.blake2b(spec, digest_size=32).digest(), id(card)


def make_plan(spec: spec_pb2.JobSpec, card: model_pb2.Model) -> JobPlan:
    """The plan of `spec` on the model of `card`. Raises SpecError naming the first field at fault."""
    layers = {layer.name: layer for layer in card.layers}
    if spec.scored_layer and spec.scored_layer not in layers:
        raise no_layer("spec.scored_layer", spec.scored_layer, card.name, layers)
    inner = bool(spec.scored_layer) and spec.scored_layer != card.score_layer
    outputs = layers[spec.scored_layer or card.score_layer].shape[-1]
    units = (not inner and card.classes) or outputs
    if units != outputs and any(it.WhichOneof("kind") == "all_units" for it in spec.targets):
        raise SpecError("spec.targets", "all_units is the mean of two classes' opposite scores, 0 for any image")
    targets, axis = _targets(spec, _Units(units, card, spec.scored_layer if inner else ""))
    model = Served(card, layers, spec.scored_layer if inner else card.score_layer)
    lead = (len(spec.images), len(targets[0])) if axis else (len(spec.images),)
    tensors: dict[str, PlannedTensor] = {}
    for i, visualization in enumerate(spec.visualizations):
        field = f"spec.visualizations[{i}]"
        kind = visualization.WhichOneof("method")
        if kind is None:
            raise SpecError(field, f"no method is set; allowed: {', '.join(METHODS)}")
        targeted = kind != "activations"
        for name, method, shape in METHODS[kind](visualization, f"{field}.{kind}", model):
            if name in tensors:
                raise SpecError(field, f"asks for {name!r} again; every array is asked for once")
            form = _form(visualization.output, f"{field}.output")
            if form.size and isinstance(method, LayerOutput) and len(layers[method.layer].shape) != 3:
                raise SpecError(f"{field}.output.height", f"is set, but {name!r} has no extent in space")
            placed = (*form.size, *shape[2:]) if form.size else shape
            leading = lead if targeted else lead[:1]
            held = _held_bytes(method, (*leading, *shape), len(spec.images), layers)
            copied = FLOAT_BYTES * math.prod(shape) if form.size else 0
            tensors[name] = PlannedTensor(name, method, (*leading, *placed), targeted, form, held, copied)
    return JobPlan(
        tuple(tensors.values()),
        targets,
        axis,
        spec.scored_layer if inner else "",
        _predictions(spec, tensors, inner),
        _variant_bytes(tensors.values(), len(targets[0]), card),
    )


def _held_bytes(method: Method, computed: Sequence[int], images: int, layers: Mapping[str, model_pb2.Layer]) -> int:
    """Bytes of an array as it is computed, and for score_cam those of the layer's activations, which it reads."""
    held = math.prod(computed)
    if isinstance(method, ActivationMapping) and method.passes:
        held += images * math.prod(layers[method.layer].shape)
    return FLOAT_BYTES * held


def _variant_bytes(tensors: Iterable[PlannedTensor], targets: int, card: model_pb2.Model) -> int:
    """Bytes of the gradients of the variants in the passes under way."""
    if not any(isinstance(tensor.method, SaliencyMap) and tensor.method.passes for tensor in tensors):
        return 0
    return PASSES_HELD * card.max_batch_size * targets * math.prod(card.input_shape) * FLOAT_BYTES


def _form(output: spec_pb2.Output, field: str) -> Form:
    """The form that arrays are to have."""
    normalization = named(spec_pb2.Normalization, output.normalization, f"{field}.normalization") or "none"
    datatype = output.datatype or tensor_pb2.DATA_TYPE_FP32
    allowed = (tensor_pb2.DATA_TYPE_FP32, tensor_pb2.DATA_TYPE_FP16, tensor_pb2.DATA_TYPE_UINT8)
    if datatype not in allowed:
        names = ", ".join(map(tensor_pb2.DataType.Name, allowed))
        raise SpecError(f"{field}.datatype", f"is {datatype}; allowed: {names}")
    if not output.height and not output.width:
        return Form(None, normalization, datatype)
    sides = counted(output.height, f"{field}.height", MAX_SIDE), counted(output.width, f"{field}.width", MAX_SIDE)
    return Form(sides, normalization, datatype)


class _Units:
    """The units of the scored layer that targets can name, by index or by label."""

    def __init__(self, count: int, card: model_pb2.Model, inner: str) -> None:
        self.count = count
        self._card = card
        self._inner = inner
        """The scored layer where it is not the model's own; its units have no labels."""

    def at(self, index: int, field: str) -> int:
        """The unit of an index."""
        if not 0 <= index < self.count:
            raise SpecError(field, f"is {index}; allowed: 0…{self.count - 1}")
        return index

    def labelled(self, label: str, field: str) -> int:
        """The unit of a label."""
        if self._inner:
            raise SpecError(
                field,
                f"is the label {label[:200]!r}, but the units of the scored layer {self._inner!r} have none; give an "
                f"index, 0…{self.count - 1}",
            )
        return self._labels.unit(label, field)

    @functools.cached_property
    def _labels(self) -> Labels:
        return Labels(self._card.labels[: self.count], self._card.name)


def _targets(spec: spec_pb2.JobSpec, units: _Units) -> tuple[tuple[tuple[int, ...], ...], bool]:
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


def _codes(target: spec_pb2.Target, field: str, units: _Units) -> tuple[tuple[int, ...], bool]:
    """One image's targets as codes, and whether they were given as a list."""
    kind = target.WhichOneof("kind")
    match kind:
        case "index":
            return (units.at(target.index, f"{field}.index"),), False
        case "label":
            return (units.labelled(target.label, f"{field}.label"),), False
        case "indices":
            found = tuple(units.at(v, f"{field}.indices.values[{i}]") for i, v in enumerate(target.indices.values))
            return _distinct(found, f"{field}.indices"), True
        case "labels":
            found = tuple(units.labelled(v, f"{field}.labels.values[{i}]") for i, v in enumerate(target.labels.values))
            return _distinct(found, f"{field}.labels"), True
        case "top_k":
            if not 1 <= target.top_k <= units.count:
                raise SpecError(f"{field}.top_k", f"is {target.top_k}; allowed: 1…{units.count}")
            return tuple(PREDICTED - rank for rank in range(target.top_k)), True
    return ((ALL_UNITS,) if kind == "all_units" else (PREDICTED,)), False


def _distinct(units: tuple[int, ...], field: str) -> tuple[int, ...]:
    if not units:
        raise SpecError(field, "is empty; name at least one unit")
    if len(set(units)) < len(units):
        raise SpecError(field, "names a unit twice")
    return units


def _predictions(spec: spec_pb2.JobSpec, tensors: dict[str, PlannedTensor], inner: bool) -> int:
    """How many best classes: as asked, else as many as come for free."""
    if spec.HasField("predictions"):
        if not 0 <= spec.predictions <= MAX_PREDICTIONS:
            raise SpecError("spec.predictions", f"is {spec.predictions}; allowed: 0…{MAX_PREDICTIONS}")
        return spec.predictions
    reached = any(tensor.targeted for tensor in tensors.values()) and not inner
    return DEFAULT_PREDICTIONS if reached else 0
