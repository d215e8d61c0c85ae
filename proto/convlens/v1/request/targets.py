"""Targets: which units of the scored layer the maps of each image explain."""

from __future__ import annotations

import functools
from typing import Final

from convlens.v1 import model_pb2, spec_pb2
from convlens.v1.request.labels import Labels
from convlens.v1.status_error import SpecError

ALL_UNITS: Final = -1
"""The code of the mean over all units."""
PREDICTED: Final = -2
"""The code of the unit of the highest score; -3 is the second highest, and so on."""


class Units:
    """The units of the scored layer, which targets name by index or by label."""

    def __init__(self, count: int, card: model_pb2.Model, inner_layer: str) -> None:
        """Take the scored layer where it is not the model's own; its units have no labels."""
        self.count = count
        self._card = card
        self._inner_layer = inner_layer

    def by_index(self, index: int, field: str) -> int:
        """Return `index`. Raises SpecError where there is no such unit."""
        if not 0 <= index < self.count:
            raise SpecError(field, f"is {index}; allowed: 0…{self.count - 1}")
        return index

    def by_label(self, label: str, field: str) -> int:
        """Return the index of the unit with a label. Raises SpecError for none, or several."""
        if self._inner_layer:
            raise SpecError(
                field,
                f"is the label {label[:200]!r}, but the units of the scored layer {self._inner_layer!r} have none; "
                f"give an index, 0…{self.count - 1}",
            )
        return self._labels.unit(label, field)

    @functools.cached_property
    def _labels(self) -> Labels:
        return Labels(self._card.labels[: self.count], self._card.name)


def resolve_targets(spec: spec_pb2.JobSpec, units: Units) -> tuple[tuple[tuple[int, ...], ...], bool]:
    """Return the targets as (N,T) indices and codes, and whether the maps have a target axis."""
    images = len(spec.images)
    if len(spec.targets) not in {0, 1, images}:
        raise SpecError(
            "spec.targets", f"has {len(spec.targets)} for {images} images; allowed: none, one, or one an image"
        )
    resolved = [_resolve(target, f"spec.targets[{i}]", units) for i, target in enumerate(spec.targets)]
    resolved = resolved or [((PREDICTED,), False)]
    for i, (codes, is_list) in enumerate(resolved):
        if is_list != resolved[0][1] or len(codes) != len(resolved[0][0]):
            raise SpecError(f"spec.targets[{i}]", "has not as many units as the first image's target; all must have")
    rows = tuple(codes for codes, _ in resolved)
    return (rows * images if len(rows) == 1 else rows), resolved[0][1]


def _resolve(target: spec_pb2.Target, field: str, units: Units) -> tuple[tuple[int, ...], bool]:
    """Return one image's targets, and whether they were given as a list."""
    kind = target.WhichOneof("kind")
    match kind:
        case "index":
            return (units.by_index(target.index, f"{field}.index"),), False
        case "label":
            return (units.by_label(target.label, f"{field}.label"),), False
        case "indices":
            indices = enumerate(target.indices.values)
            several = tuple(units.by_index(index, f"{field}.indices.values[{i}]") for i, index in indices)
            return _distinct(several, f"{field}.indices"), True
        case "labels":
            labels = enumerate(target.labels.values)
            several = tuple(units.by_label(label, f"{field}.labels.values[{i}]") for i, label in labels)
            return _distinct(several, f"{field}.labels"), True
        case "top_k":
            if not 1 <= target.top_k <= units.count:
                raise SpecError(f"{field}.top_k", f"is {target.top_k}; allowed: 1…{units.count}")
            return tuple(PREDICTED - rank for rank in range(target.top_k)), True
    return ((ALL_UNITS,) if kind == "all_units" else (PREDICTED,)), False


def _distinct(units: tuple[int, ...], field: str) -> tuple[int, ...]:
    """Return `units`. Raises SpecError for none, and for one that is repeated."""
    if not units:
        raise SpecError(field, "is empty; name at least one unit")
    if len(set(units)) < len(units):
        raise SpecError(field, "names a unit twice")
    return units
