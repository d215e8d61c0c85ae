"""SmoothGrad, SmoothGrad-Squared and VarGrad: moments of the gradient under noise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.perturbation import MethodResult, Original
from convlens.worker.engine.plan import REDUCTIONS, Map, Saliency

SEED: Final = 20170612


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Copies with Gaussian noise.

    The noise of a copy is seeded by its number alone: equal images get equal maps, whatever else is in the batch.
    """

    samples: int
    noise: float
    """σ, as a share of the image's max − min."""

    @property
    def evaluated_map(self) -> Map:
        """The signed gradient."""
        return Saliency(reduction="none")

    def count(self, original: Original) -> int:  # noqa: ARG002
        """See Perturbation."""
        return self.samples

    def generate(self, original: Original) -> Iterator[Floats]:
        """See Perturbation."""
        sigma = np.float32(self.noise * np.ptp(original.image))
        for i in range(self.samples):
            yield original.image + sigma * _standard_normal(i, original.image.shape)


@functools.lru_cache(maxsize=64)
def _standard_normal(i: int, shape: tuple[int, ...]) -> Floats:
    """Draw the noise of copy `i`, σ = 1; 0.6 MB for 224×224."""
    return np.random.default_rng((SEED, i)).standard_normal(shape, np.float32)


MOMENTS: Final[dict[str, Callable[[Floats, Floats], Floats]]] = {
    # Smilkov et al., 2017, https://arxiv.org/abs/1706.03825
    "smooth_grad": lambda mean, _: mean,
    # Hooker et al., 2019, https://arxiv.org/abs/1806.10758
    "smooth_grad_squared": lambda mean, variance: variance + mean * mean,
    # Adebayo et al., 2018, https://arxiv.org/abs/1810.03307
    "var_grad": lambda _, variance: variance,
}
"""By method: its map, as a function of the mean and the variance of the gradients."""


@dataclass(frozen=True, slots=True)
class SmoothGrad:
    """A moment, by MOMENTS, of ∂S/∂x over noisy copies of x: E[g], E[g²] or Var[g].

    Gives (N,T,H,W) float32, the channels reduced by `reduction`, a key of plan.REDUCTIONS, after averaging the signed
    gradients; (N,T,H,W,C) in RGB order where it is none. Defaults are those of PAIR's saliency library.
    """

    perturbation: GaussianNoise = GaussianNoise(25, 0.15)
    moment: str = "smooth_grad"
    reduction: str = "abs_max"
    required_maps: tuple[Map, ...] = ()

    def accumulate(self, original: Original) -> _Moments:  # noqa: ARG002
        """See PerturbationMethod."""
        return _Moments(self)


class _Moments:
    """Welford's running mean and variance."""

    def __init__(self, method: SmoothGrad) -> None:
        self._method = method
        self._count = 0
        self._mean: Floats = np.zeros((), np.float32)
        self._squares: Floats = np.zeros((), np.float32)

    def add(self, evaluation: Floats, scores: Floats) -> None:  # noqa: ARG002
        self._count += 1
        difference = evaluation - self._mean
        self._mean = self._mean + difference / np.float32(self._count)
        self._squares = self._squares + difference * (evaluation - self._mean)

    def result(self) -> MethodResult:
        moment = MOMENTS[self._method.moment](self._mean, self._squares / np.float32(self._count))
        return MethodResult(REDUCTIONS[self._method.reduction](np, moment))
