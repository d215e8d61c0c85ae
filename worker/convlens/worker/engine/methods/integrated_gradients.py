"""Integrated gradients: the score's difference to a baseline, distributed over the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convlens.worker.engine.outputs import Completeness, Floats
from convlens.worker.engine.perturbation import MethodResult, Original
from convlens.worker.engine.plan import REDUCTIONS, Map, Saliency
from convlens.worker.engine.preprocess import convert_color


@dataclass(frozen=True, slots=True)
class Blur:
    """A baseline: the image itself, blurred by a Gaussian."""

    sigma: float
    """Pixels."""


Baseline = tuple[float, float, float] | Blur
"""An RGB colour in 0…255, or a blurred image."""
BLACK_AND_WHITE: tuple[Baseline, ...] = ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@dataclass(frozen=True, slots=True)
class StraightPath:
    """`steps` midpoints on the straight line from each baseline to the image, followed by the baseline itself."""

    steps: int = 25
    baselines: tuple[Baseline, ...] = BLACK_AND_WHITE

    @property
    def evaluated_map(self) -> Map:
        """The signed gradient."""
        return Saliency(reduction="none")

    def count(self, original: Original) -> int:  # noqa: ARG002
        """See Perturbation."""
        return len(self.baselines) * (self.steps + 1)

    def generate(self, original: Original) -> Iterator[Floats]:
        """See Perturbation."""
        for baseline in self.baselines:
            start = create_baseline(baseline, original.image)
            for step in range(self.steps):
                yield start + np.float32((step + 0.5) / self.steps) * (original.image - start)
            yield start


def create_baseline(baseline: Baseline, image: Floats) -> Floats:
    """Return the baseline of `image` (H,W,C), of the same shape, float32."""
    if isinstance(baseline, Blur):
        return blur(image, baseline.sigma)
    return np.broadcast_to(convert_color(baseline, image.shape[-1]), image.shape)


def blur(image: Floats, sigma: float) -> Floats:
    """Blur `image` (H,W,C) by a Gaussian of `sigma` pixels, truncated at 3σ, edges replicated."""
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        padded = np.pad(image, [(radius, radius) if axis == a else (0, 0) for a in range(3)], mode="edge")
        length = image.shape[axis]
        image = sum((w * padded.take(range(i, i + length), axis) for i, w in enumerate(kernel)), np.zeros_like(image))
    return image


@dataclass(frozen=True, slots=True)
class IntegratedGradients:
    """(x − x′)·∫∂S/∂x dα along the straight path from a baseline x′ to the image x, the mean over the baselines.

    Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365. The integral is a midpoint sum, whose error falls with
    the square of the steps. The default baselines are black and white, since one baseline assigns nothing to pixels of
    its own colour.

    Gives (N,T,H,W) float32, the channels reduced by `reduction`, a key of plan.REDUCTIONS, or (N,T,H,W,C) in RGB order
    where it is none. `Outputs.completeness` has the error of the sum.
    """

    perturbation: StraightPath = StraightPath()
    reduction: str = "abs_max"
    required_maps: tuple[Map, ...] = ()

    def accumulate(self, original: Original) -> PathIntegral:
        """See PerturbationMethod."""
        return PathIntegral(self.perturbation, original, self.reduction)


class PathIntegral:
    """Integrates the gradients along each path."""

    def __init__(self, path: StraightPath, original: Original, reduction: str) -> None:
        self._path = path
        self._original = original
        self._reduction = reduction
        self._step = 0
        self._gradient_sum = np.zeros((), np.float64)
        self._attributions = np.zeros((), np.float64)
        self._baseline_scores = np.zeros(original.scores.shape, np.float64)

    def add(self, evaluation: Floats, scores: Floats) -> None:
        """See Accumulator."""
        path, original = self._path, self._original
        baseline, step = divmod(self._step, path.steps + 1)
        self._step += 1
        if step < path.steps:
            self._gradient_sum = self._gradient_sum + evaluation
            return
        start = create_baseline(path.baselines[baseline], original.image)
        weight = np.array(original.preprocess.scale) / path.steps / len(path.baselines)
        self._attributions = self._attributions + self._gradient_sum * ((original.image - start) * weight)
        self._gradient_sum = np.zeros((), np.float64)
        self._baseline_scores += scores / len(path.baselines)

    def result(self) -> MethodResult:
        """See Accumulator."""
        delta = self._attributions.sum((1, 2, 3)) - (self._original.scores - self._baseline_scores)
        completeness = Completeness(self._baseline_scores.astype(np.float32), delta.astype(np.float32))
        attributions = self._attributions.astype(np.float32)
        return MethodResult(REDUCTIONS[self._reduction](np, attributions), completeness)
