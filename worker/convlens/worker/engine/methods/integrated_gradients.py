"""Integrated gradients: the difference of the score to a baseline's, divided among the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convlens.worker.engine.outputs import Completeness, Floats
from convlens.worker.engine.plan import REDUCTIONS, Map, Saliency
from convlens.worker.engine.preprocess import as_channels
from convlens.worker.engine.sampling import Folded, Subject


@dataclass(frozen=True, slots=True)
class Blur:
    """A baseline: the image itself, blurred by a Gaussian of `sigma` pixels."""

    sigma: float


Baseline = tuple[float, float, float] | Blur
"""An RGB colour in 0…255, or a blurred image."""
BLACK_AND_WHITE: tuple[Baseline, ...] = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@dataclass(frozen=True, slots=True)
class Path:
    """From each baseline straight to the image, `steps` midpoints; then the baseline itself."""

    steps: int = 25
    baselines: tuple[Baseline, ...] = BLACK_AND_WHITE

    @property
    def asks(self) -> Map:
        """The gradient, signed."""
        return Saliency(reduction="none")

    def count(self, subject: Subject) -> int:  # noqa: ARG002
        """See Variants."""
        return len(self.baselines) * (self.steps + 1)

    def of(self, subject: Subject) -> Iterator[Floats]:
        """See Variants."""
        for baseline in self.baselines:
            start = baseline_image(baseline, subject.image)
            for step in range(self.steps):
                yield start + np.float32((step + 0.5) / self.steps) * (subject.image - start)
            yield start


def baseline_image(baseline: Baseline, image: Floats) -> Floats:
    """(H,W,3) float32."""
    if isinstance(baseline, Blur):
        return blurred(image, baseline.sigma)
    return np.broadcast_to(as_channels(baseline, image.shape[-1]), image.shape)


def blurred(image: Floats, sigma: float) -> Floats:
    """(H,W,3) after a Gaussian, cut at 3σ, edges repeated."""
    reach = int(np.ceil(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        padded = np.pad(image, [(reach, reach) if axis == a else (0, 0) for a in range(3)], mode="edge")
        length = image.shape[axis]
        image = sum((w * padded.take(range(i, i + length), axis) for i, w in enumerate(taps)), np.zeros_like(image))
    return image


@dataclass(frozen=True, slots=True)
class IntegratedGradients:
    """(x − x′)·∫∂S/∂x along the path from x′ (Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365).

    The mean over the baselines; (T,H,W), or (T,H,W,3) with reduction none. Midpoints are summed, whose error falls with
    the square of the steps. Black and white together leave no colour blind, as one baseline is to its own.
    """

    variants: Path = Path()
    reduction: str = "abs_max"
    needs: tuple[Map, ...] = ()

    def fold(self, subject: Subject) -> PathIntegral:
        """See Sampled."""
        return PathIntegral(self.variants, subject, self.reduction)


class PathIntegral:
    """Sums the gradients along each path."""

    def __init__(self, path: Path, subject: Subject, reduction: str) -> None:
        self._path = path
        self._subject = subject
        self._reduction = reduction
        self._step = 0
        self._sum = np.zeros((), np.float64)
        self._whole = np.zeros((), np.float64)
        self._ends = np.zeros(subject.scores.shape, np.float64)

    def add(self, found: Floats, scores: Floats) -> None:
        """See Fold."""
        path, subject = self._path, self._subject
        baseline, step = divmod(self._step, path.steps + 1)
        self._step += 1
        if step < path.steps:
            self._sum = self._sum + found
            return
        start = baseline_image(path.baselines[baseline], subject.image)
        share = np.array(subject.preprocess.scale) / path.steps / len(path.baselines)
        self._whole = self._whole + self._sum * ((subject.image - start) * share)
        self._sum = np.zeros((), np.float64)
        self._ends += scores / len(path.baselines)

    def attributions(self) -> Floats:
        """(T,H,W,3), signed."""
        return self._whole.astype(np.float32)

    def result(self) -> Folded:
        """See Fold."""
        delta = self._whole.sum((1, 2, 3)) - (self._subject.scores - self._ends)
        completeness = Completeness(self._ends.astype(np.float32), delta.astype(np.float32))
        return Folded(REDUCTIONS[self._reduction](np, self.attributions()), completeness)
