"""What a pass gives, as arrays. Knows no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Completeness:
    """How well attributions add up to the difference S(x) − S(baseline); means over the baselines."""

    baseline_scores: Floats
    """(N,T): S(baseline)."""
    delta: Floats
    """(N,T): Σ attributions − (S(x) − S(baseline)). 0 were the steps infinitely many."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a pass gives; N images, T targets, K predictions."""

    maps: dict[Any, Floats]
    """By what was asked for: (N,T,…), or (N,…) for activations."""
    targets: Ints | None
    """(N,T): the unit explained, ALL_UNITS for the mean of all. None without gradients."""
    scores: Floats | None
    """(N,T): the score differentiated."""
    probabilities: Floats | None
    """(N,T): the unit's probability; None unless it is a logit of a model that ends in softmax or sigmoid."""
    predicted: Ints | None
    """(N,K): the best classes, descending. None when none were asked for."""
    predicted_logits: Floats | None
    """(N,K)"""
    predicted_probabilities: Floats | None
    """(N,K); None for a model without them."""
    completeness: Mapping[Any, Completeness] = field(default_factory=dict)
    """By map, of the methods that have it."""

    def added(self, maps: Mapping[Any, Floats], completeness: Mapping[Any, Completeness]) -> Outputs:
        """These with more maps."""
        return replace(self, maps={**self.maps, **maps}, completeness={**self.completeness, **completeness})

    @staticmethod
    def joined(parts: Sequence[Outputs]) -> Outputs:
        """Pieces of one plan, of one pass each, as one along the images."""
        if len(parts) == 1:
            return parts[0]

        def together(name: str) -> Any:
            arrays = [getattr(part, name) for part in parts]
            return None if arrays[0] is None else np.concatenate(arrays)

        names = ("targets", "scores", "probabilities", "predicted", "predicted_logits", "predicted_probabilities")
        maps = {item: np.concatenate([part.maps[item] for part in parts]) for item in parts[0].maps}
        return Outputs(maps, *map(together, names))

    def split(self, sizes: Iterable[int]) -> list[Outputs]:
        """The same, cut along the images into pieces of these sizes."""
        pieces, start = [], 0
        for size in sizes:
            rows = slice(start, start + size)

            def cut(array: Any, rows: slice = rows) -> Any:
                return None if array is None else array[rows]

            pieces.append(
                Outputs(
                    {item: array[rows] for item, array in self.maps.items()},
                    *map(cut, (self.targets, self.scores, self.probabilities, self.predicted)),
                    *map(cut, (self.predicted_logits, self.predicted_probabilities)),
                )
            )
            start += size
        return pieces
