"""Occlusion sensitivity: how much the score drops where the image is covered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.perturbation import MethodResult, Original
from convlens.worker.engine.plan import Map, Score
from convlens.worker.engine.preprocess import convert_color


@dataclass(frozen=True, slots=True)
class SlidingPatch:
    """A square of one colour that slides over the image, clipped at the edges."""

    patch: int
    """The square's side, pixels."""
    stride: int
    """Pixels."""
    color: tuple[float, float, float] | None
    """RGB in 0…255; None: the colour that preprocessing maps to 0."""

    @property
    def evaluated_map(self) -> Map:
        """Only the score."""
        return Score()

    def count(self, original: Original) -> int:
        """See Perturbation."""
        return len(self.list_squares(original.image))

    def list_squares(self, image: Floats) -> list[tuple[slice, slice]]:
        """Return the rows and columns of each square, row by row."""
        steps = [range(ceil(max(0, side - self.patch) / self.stride) + 1) for side in image.shape[:2]]
        slices = [[slice(k * self.stride, k * self.stride + self.patch) for k in axis] for axis in steps]
        return [(rows, columns) for rows in slices[0] for columns in slices[1]]

    def generate(self, original: Original) -> Iterator[Floats]:
        """See Perturbation."""
        zero = original.preprocess.zero
        color = zero if self.color is None else convert_color(self.color, original.image.shape[-1])
        for square in self.list_squares(original.image):
            covered = original.image.copy()
            covered[square] = color
            yield covered


@dataclass(frozen=True, slots=True)
class Occlusion:
    """S(x) − S(x with a square covered), the mean over the squares that cover a pixel.

    Zeiler and Fergus, 2014, https://arxiv.org/abs/1311.2901. Gives (N,T,H,W) float32, signed. The default squares of 32
    pixels at stride 16 cover a pixel four times except near the edges, in 169 forward passes of 224×224.
    """

    perturbation: SlidingPatch = SlidingPatch(32, 16, None)
    required_maps: tuple[Map, ...] = ()

    def accumulate(self, original: Original) -> _ScoreDrops:
        """See PerturbationMethod."""
        return _ScoreDrops(self.perturbation, original)


class _ScoreDrops:
    def __init__(self, perturbation: SlidingPatch, original: Original) -> None:
        self._scores = original.scores
        self._squares = iter(perturbation.list_squares(original.image))
        self._sum = np.zeros((*original.scores.shape, *original.image.shape[:2]))
        self._count = np.zeros(original.image.shape[:2])

    def add(self, evaluation: Floats, scores: Floats) -> None:  # noqa: ARG002
        rows, columns = next(self._squares)
        self._sum[:, rows, columns] += (self._scores - scores)[:, None, None]
        self._count[rows, columns] += 1

    def result(self) -> MethodResult:
        return MethodResult((self._sum / self._count).astype(np.float32))
