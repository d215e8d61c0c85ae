"""What a pass gives, as arrays. Knows no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convlens.worker.engine.plan import Map

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a pass gives; N images, T targets, K predictions."""

    maps: dict[Map, Floats]
    """(N,T,…) for gradients, (N,…) for activations."""
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
