"""The arrays that a pass gives. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Completeness:
    """How far attributions are from adding up to S(x) − S(baseline); means over the baselines."""

    baseline_scores: Floats
    """(N,T): S(baseline)."""
    delta: Floats
    """(N,T): Σ attributions − (S(x) − S(baseline)), which tends to 0 as the steps increase."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of a pass over N images, with T targets and K predictions each."""

    maps: dict[Any, Floats]
    """By requested map: (N,T,…), or (N,…) of an Activation."""
    targets: Ints | None
    """(N,T): the explained unit, or plan.ALL_UNITS for the mean over all units. None when no map explains a target."""
    scores: Floats | None
    """(N,T): the score S of the target."""
    probabilities: Floats | None
    """(N,T): the unit's probability; None unless the score is a logit of a model that ends in softmax or sigmoid."""
    predicted: Ints | None
    """(N,K): the classes of the highest scores, descending. None when no predictions were requested."""
    predicted_logits: Floats | None
    """(N,K)"""
    predicted_probabilities: Floats | None
    """(N,K); None for a model without probabilities."""
    completeness: Mapping[Any, Completeness] = field(default_factory=dict)
    """By method, of those that distribute a difference of scores over the pixels."""

    def with_maps(self, maps: Mapping[Any, Floats], completeness: Mapping[Any, Completeness]) -> Outputs:
        """Return these outputs with more maps."""
        return replace(self, maps={**self.maps, **maps}, completeness={**self.completeness, **completeness})

    @staticmethod
    def concatenate(parts: Sequence[Outputs]) -> Outputs:
        """Concatenate outputs of the same plan along the images."""
        if len(parts) == 1:
            return parts[0]

        def concatenate(name: str) -> Any:
            arrays = [getattr(part, name) for part in parts]
            return None if arrays[0] is None else np.concatenate(arrays)

        maps = {item: np.concatenate([part.maps[item] for part in parts]) for item in parts[0].maps}
        return Outputs(maps, *map(concatenate, _ARRAYS))

    def split(self, sizes: Iterable[int]) -> list[Outputs]:
        """Split along the images into parts of these sizes; the arrays are views."""
        parts, start = [], 0
        for size in sizes:
            rows = slice(start, start + size)
            arrays = {name: array[rows] for name in _ARRAYS if (array := getattr(self, name)) is not None}
            parts.append(replace(self, maps={item: array[rows] for item, array in self.maps.items()}, **arrays))
            start += size
        return parts


_ARRAYS: Final = ("targets", "scores", "probabilities", "predicted", "predicted_logits", "predicted_probabilities")
"""The fields of Outputs that have an image axis, beside its maps."""
