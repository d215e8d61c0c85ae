"""Occlusion sensitivity: what the score loses where the image is covered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.plan import Map, Score
from convlens.worker.engine.preprocess import as_channels
from convlens.worker.engine.sampling import Folded, Subject


@dataclass(frozen=True, slots=True)
class Covered:
    """A square of `patch` pixels, moved by `stride` and cut off at the edges, in one colour."""

    patch: int
    stride: int
    color: tuple[float, float, float] | None
    """RGB in 0…255; None: the one that the network's preprocessing makes 0."""

    @property
    def asks(self) -> Map:
        """Only the score."""
        return Score()

    def count(self, subject: Subject) -> int:
        """See Variants."""
        return len(self.squares(subject.image))

    def squares(self, image: Floats) -> list[tuple[slice, slice]]:
        """Where the square is, variant by variant."""
        across = [range(ceil(max(0, side - self.patch) / self.stride) + 1) for side in image.shape[:2]]
        slices = [[slice(k * self.stride, k * self.stride + self.patch) for k in axis] for axis in across]
        return [(rows, columns) for rows in slices[0] for columns in slices[1]]

    def of(self, subject: Subject) -> Iterator[Floats]:
        """See Variants."""
        zero = subject.preprocess.zero
        color = zero if self.color is None else as_channels(self.color, subject.image.shape[-1])
        for square in self.squares(subject.image):
            covered = subject.image.copy()
            covered[square] = color
            yield covered


@dataclass(frozen=True, slots=True)
class Occlusion:
    """S(x) − S(x with a square covered), the mean over the squares that cover a pixel: (T,H,W), signed.

    Zeiler and Fergus, 2014, https://arxiv.org/abs/1311.2901. Squares of 32 pixels in steps of 16 cover every pixel four
    times but for the edges, in 169 forward passes of 224×224.
    """

    variants: Covered = Covered(32, 16, None)
    needs: tuple[Map, ...] = ()

    def fold(self, subject: Subject) -> _Losses:
        """See Sampled."""
        return _Losses(self.variants, subject)


class _Losses:
    def __init__(self, variants: Covered, subject: Subject) -> None:
        self._scores = subject.scores
        self._squares = iter(variants.squares(subject.image))
        self._sum = np.zeros((*subject.scores.shape, *subject.image.shape[:2]))
        self._count = np.zeros(subject.image.shape[:2])

    def add(self, found: Floats, scores: Floats) -> None:  # noqa: ARG002
        rows, columns = next(self._squares)
        self._sum[:, rows, columns] += (self._scores - scores)[:, None, None]
        self._count[rows, columns] += 1

    def result(self) -> Folded:
        return Folded((self._sum / self._count).astype(np.float32))
