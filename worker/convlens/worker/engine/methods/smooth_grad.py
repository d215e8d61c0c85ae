"""SmoothGrad and its kin: moments of the gradient under noise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.plan import REDUCTIONS, Map, Saliency
from convlens.worker.engine.sampling import Folded, Subject

SEED: Final = 20170612


@dataclass(frozen=True, slots=True)
class Noisy:
    """`samples` copies with Gaussian noise, σ = `noise` × (max − min) of the image.

    Seeded by the sample's number alone: equal images get equal maps, whoever they share a batch with.
    """

    samples: int
    noise: float

    @property
    def asks(self) -> Map:
        """The gradient, signed."""
        return Saliency(reduction="none")

    def count(self, subject: Subject) -> int:  # noqa: ARG002
        """See Variants."""
        return self.samples

    def of(self, subject: Subject) -> Iterator[Floats]:
        """See Variants."""
        sigma = np.float32(self.noise * np.ptp(subject.image))
        for i in range(self.samples):
            yield subject.image + sigma * _normal(i, subject.image.shape)


@functools.lru_cache(maxsize=64)
def _normal(i: int, shape: tuple[int, ...]) -> Floats:
    """The noise of sample `i`, σ = 1; 0.6 MB for 224×224."""
    return np.random.default_rng((SEED, i)).standard_normal(shape, np.float32)


MOMENTS: Final[dict[str, Callable[[Floats, Floats], Floats]]] = {
    # Smilkov et al., 2017, https://arxiv.org/abs/1706.03825
    "smooth_grad": lambda mean, _: mean,
    # Hooker et al., 2019, https://arxiv.org/abs/1806.10758
    "smooth_grad_squared": lambda mean, variance: variance + mean * mean,
    # Adebayo et al., 2018, https://arxiv.org/abs/1810.03307
    "var_grad": lambda _, variance: variance,
}
"""One row a method: what it makes of the mean and the variance of the gradients."""


@dataclass(frozen=True, slots=True)
class SmoothGrad:
    """One of MOMENTS, (T,H,W), or (T,H,W,3) with reduction none. 25 samples and noise 0.15 are PAIR's defaults.

    The signed gradients are averaged, then the channels are reduced.
    """

    variants: Noisy = Noisy(25, 0.15)
    moment: str = "smooth_grad"
    reduction: str = "abs_max"
    needs: tuple[Map, ...] = ()

    def fold(self, subject: Subject) -> _Moments:  # noqa: ARG002
        """See Sampled."""
        return _Moments(self)


class _Moments:
    """Welford's mean and variance."""

    def __init__(self, method: SmoothGrad) -> None:
        self._method = method
        self._count = 0
        self._mean: Floats = np.zeros((), np.float32)
        self._squares: Floats = np.zeros((), np.float32)

    def add(self, found: Floats, scores: Floats) -> None:  # noqa: ARG002
        self._count += 1
        off = found - self._mean
        self._mean = self._mean + off / np.float32(self._count)
        self._squares = self._squares + off * (found - self._mean)

    def result(self) -> Folded:
        moment = MOMENTS[self._method.moment](self._mean, self._squares / np.float32(self._count))
        return Folded(REDUCTIONS[self._method.reduction](np, moment))
