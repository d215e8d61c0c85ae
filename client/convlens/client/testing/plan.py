"""Which arrays a request gives, of which names and shapes, and for which units; or the field at fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from convlens.client.testing.cards import LIMITS
from convlens.client.testing.status import refuse
from convlens.v1 import model_pb2, spec_pb2, tensor_pb2, tensors
from convlens.v1.enums import short_name

ALL_UNITS: Final = -1
"""The code of the mean over all units."""
PREDICTED: Final = -2
"""The code of the best unit; -3 is the second best, and so on."""


@dataclass(frozen=True, slots=True)
class PlannedArray:
    """An array of the result; `shape` has no axes of images and targets."""

    name: str
    shape: tuple[int, ...]
    is_signed: bool = False
    has_target: bool = True
    channels: tuple[int, ...] = ()
    normalization: spec_pb2.Normalization.ValueType = spec_pb2.NORMALIZATION_NONE
    datatype: tensor_pb2.DataType.ValueType = tensor_pb2.DATA_TYPE_FP32


class Plan:
    """What a job computes. Raises StatusError for the first field that the model cannot grant."""

    def __init__(self, spec: spec_pb2.JobSpec, card: model_pb2.Model) -> None:
        self.card = card
        self._layers = {layer.name: tuple(layer.shape) for layer in card.layers}
        self.scored_layer = spec.scored_layer or card.score_layer
        self._check_layer(self.scored_layer, "spec.scored_layer")
        self.is_inner_layer = self.scored_layer != card.score_layer
        self.units = self._layers[self.scored_layer][-1] if self.is_inner_layer else card.classes
        self.targets, self.has_target_axis = self._resolve_targets(spec)
        self.arrays: dict[str, PlannedArray] = {}
        for i, visualization in enumerate(spec.visualizations):
            self._add_arrays(visualization, f"spec.visualizations[{i}]")
        reaches_logits = any(array.has_target for array in self.arrays.values()) and not self.is_inner_layer
        self.predictions = spec.predictions if spec.HasField("predictions") else 5 * reaches_logits
        if not 0 <= self.predictions <= 1000:
            refuse("spec.predictions", f"is {self.predictions}; allowed: 0…1000")
        if len(self.targets[0]) > LIMITS.max_targets:
            refuse("spec.targets", f"has {len(self.targets[0])} an image; allowed: {LIMITS.max_targets}")
        self.result_bytes = sum(
            tensors.byte_size(array.datatype, (*self.leading_axes(array), *array.shape))
            for array in self.arrays.values()
        )
        if self.result_bytes > LIMITS.max_result_bytes:
            refuse("spec.visualizations", f"the result would take {self.result_bytes} bytes")

    def leading_axes(self, array: PlannedArray) -> tuple[int, ...]:
        """Return the lengths of the axes of images and, where there is one, targets."""
        images = len(self.targets)
        return (images, len(self.targets[0])) if array.has_target and self.has_target_axis else (images,)

    def _check_layer(self, layer: str, field: str) -> None:
        if layer not in self._layers:
            refuse(field, f"no layer {layer!r} in model {self.card.name!r}; allowed: {', '.join(self._layers)}")

    def _is_spatial(self, layer: str) -> bool:
        """Return whether a layer has more than one position and precedes the scored layer."""
        names, shape = list(self._layers), self._layers.get(layer, ())
        is_large = len(shape) == 3 and shape[0] * shape[1] > 1
        return is_large and names.index(layer) < names.index(self.scored_layer)

    # --- targets ---

    def _resolve_targets(self, spec: spec_pb2.JobSpec) -> tuple[list[list[int]], bool]:
        """Return the units of each image, and whether they were given as lists."""
        images = len(spec.images)
        if len(spec.targets) not in {0, 1, images}:
            refuse("spec.targets", f"has {len(spec.targets)} for {images} images; allowed: none, one, or one an image")
        rows = [self._resolve_target(target, f"spec.targets[{i}]") for i, target in enumerate(spec.targets)]
        (first, is_list), *_ = rows = rows or [([PREDICTED], False)]
        for i, (units, is_list_too) in enumerate(rows):
            if (len(units), is_list_too) != (len(first), is_list):
                refuse(f"spec.targets[{i}]", "has not as many units as the first image's target; all must have")
        return [units for units, _ in rows] * (images if len(rows) == 1 else 1), is_list

    def _resolve_target(self, target: spec_pb2.Target, field: str) -> tuple[list[int], bool]:
        kind = target.WhichOneof("kind")
        match kind:
            case "index":
                return [self._unit(target.index, f"{field}.index")], False
            case "label":
                return [self._labelled_unit(target.label, f"{field}.label")], False
            case "top_k":
                if not 1 <= target.top_k <= self.units:
                    refuse(f"{field}.top_k", f"is {target.top_k}; allowed: 1…{self.units}")
                return [PREDICTED - rank for rank in range(target.top_k)], True
            case "indices" | "labels":
                resolve: Any = self._unit if kind == "indices" else self._labelled_unit
                values = getattr(target, kind).values
                units = [resolve(value, f"{field}.{kind}.values[{i}]") for i, value in enumerate(values)]
                if not units or len(set(units)) < len(units):
                    refuse(f"{field}.{kind}", "names a unit twice, or none")
                return units, True
        return [ALL_UNITS if kind == "all_units" else PREDICTED], False

    def _unit(self, index: int, field: str) -> int:
        if not 0 <= index < self.units:
            refuse(field, f"is {index}; allowed: 0…{self.units - 1}")
        return index

    def _labelled_unit(self, label: str, field: str) -> int:
        """Return the unit labelled so: exactly, else but for case and separators, else as one of its synonyms."""
        labels = [] if self.is_inner_layer else self.card.labels
        folded = [[_folded(name) for name in (known, *known.split(","))] for known in labels]
        exact = [unit for unit, known in enumerate(labels) if known == label]
        alike = [unit for unit, names in enumerate(folded) if names[0] == _folded(label)]
        synonyms = [unit for unit, names in enumerate(folded) if _folded(label) in names]
        units = exact or alike or synonyms
        if len(units) != 1:
            refuse(field, f"is {label!r}, the label of {len(units)} units: {units}")
        return units[0]

    # --- arrays ---

    def _add_arrays(self, visualization: spec_pb2.Visualization, field: str) -> None:
        kind = visualization.WhichOneof("method")
        if kind is None:
            refuse(field, "no method is set; allowed: saliency, grad_cam, activations, occlusion")
        planned: Iterator[PlannedArray] = getattr(self, f"_plan_{kind}")(
            getattr(visualization, kind), f"{field}.{kind}"
        )
        for array in planned:
            if array.name in self.arrays:
                refuse(field, f"requests {array.name!r} again; every array can be requested once")
            self.arrays[array.name] = _formatted(array, visualization.output, f"{field}.output")

    def _plan_saliency(self, options: spec_pb2.Saliency, field: str) -> Iterator[PlannedArray]:
        method = self._method_name(spec_pb2.SaliencyMethod, options.method or 1, f"{field}.method")
        reduction = _short_name(spec_pb2.ChannelReduction, options.reduction, f"{field}.reduction") or "abs_max"
        if method == "xrai" and options.reduction:
            refuse(f"{field}.reduction", "is set, but xrai has no channels left to reduce")
        if method == "guided_grad_cam" and not self._is_spatial(self.card.cam_layer):
            refuse(f"{field}.method", f"guided_grad_cam needs a convolution below {self.scored_layer!r}")
        suffix = {"abs_max": "", "none": "/signed"}.get(reduction, f"/{reduction}")
        shape = tuple(self.card.input_shape)[: 3 if reduction == "none" else 2]
        name = "saliency" + f"/{method}" * (method != "vanilla") + suffix
        yield PlannedArray(name, shape, is_signed=reduction not in {"abs_max", "norm"})

    def _plan_grad_cam(self, options: spec_pb2.GradCam, field: str) -> Iterator[PlannedArray]:
        _short_name(spec_pb2.MapSize, options.size, f"{field}.size")
        method = self._method_name(spec_pb2.CamMethod, options.method or 1, f"{field}.method")
        layer = options.layer or self.card.cam_layer
        self._check_layer(layer, f"{field}.layer")
        shape = self._layers[layer]
        if not self._is_spatial(layer):
            refuse(f"{field}.layer", f"{layer!r} has only one place, or is not below {self.scored_layer!r}")
        if options.signed and method == "score_cam":
            refuse(f"{field}.signed", "is set, but score_cam has positive weights alone")
        is_upsampled = options.size == spec_pb2.MAP_SIZE_INPUT
        name = method + f"/{layer}" * (layer != self.card.cam_layer)
        name += "/upsampled" * is_upsampled + "/signed" * options.signed
        yield PlannedArray(name, tuple(self.card.input_shape if is_upsampled else shape)[:2], is_signed=options.signed)

    def _plan_activations(self, options: spec_pb2.Activations, field: str) -> Iterator[PlannedArray]:
        channels = tuple(options.channels)
        reduction = _short_name(spec_pb2.ChannelReduction, options.reduction, f"{field}.reduction") or "none"
        is_reduced = reduction != "none"
        if not options.layers:
            refuse(f"{field}.layers", f"is empty; allowed: {', '.join(self._layers)}")
        if len(set(channels)) < len(channels):
            refuse(f"{field}.channels", "names a channel twice")
        for i, layer in enumerate(options.layers):
            self._check_layer(layer, f"{field}.layers[{i}]")
            *space, count = self._layers[layer]
            for k, channel in enumerate(channels):
                if not 0 <= channel < count:
                    refuse(f"{field}.channels[{k}]", f"is {channel}, but layer {layer!r} has channels 0…{count - 1}")
            shape = (*space,) if is_reduced else (*space, len(channels) or count)
            name = f"activations/{layer}" + f"/{reduction}" * is_reduced
            yield PlannedArray(name, shape, has_target=False, channels=() if is_reduced else channels)

    def _plan_occlusion(self, _options: spec_pb2.Occlusion, _field: str) -> Iterator[PlannedArray]:
        yield PlannedArray("occlusion", tuple(self.card.input_shape)[:2], is_signed=True)

    def _method_name(self, enum: Any, value: int, field: str) -> str:
        name = _short_name(enum, value, field)
        if name not in self.card.methods:
            refuse(field, f"is {name}; allowed: {', '.join(self.card.methods)}")
        return name


def _formatted(array: PlannedArray, output: spec_pb2.Output, field: str) -> PlannedArray:
    """Return the array in the form that `output` describes, with its datatype stated."""
    _short_name(spec_pb2.Normalization, output.normalization, f"{field}.normalization")
    datatype = output.datatype or tensor_pb2.DATA_TYPE_FP32
    if datatype not in tensors.OUTPUT_DATATYPES:
        refuse(f"{field}.datatype", f"is {datatype}; allowed: FP32, FP16, UINT8")
    shape = array.shape
    if output.height or output.width:
        for side in ("height", "width"):
            if not 1 <= getattr(output, side) <= 4096:
                refuse(f"{field}.{side}", f"is {getattr(output, side)}; allowed: 1…4096")
        if len(shape) < 2:
            refuse(f"{field}.height", f"is set, but {array.name!r} has no extent in space")
        shape = (output.height, output.width, *shape[2:])
    return replace(array, shape=shape, normalization=output.normalization, datatype=datatype)


def _short_name(enum: Any, value: int, field: str) -> str:
    """Return the short name of an enum's value, empty for UNSPECIFIED."""
    name = short_name(enum, value)
    if name is None:
        refuse(field, f"is {value}; allowed: {', '.join(enum.keys()[1:])}")
    return name


def _folded(label: str) -> str:
    """Return a label without case and separators, which people write differently."""
    return re.sub(r"[\s_-]+", " ", label).strip().casefold()
