"""XRAI: regions of the image, ranked by how much of the score they hold. Needs scikit-image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from convlens.worker.engine.methods.integrated_gradients import Path, PathIntegral
from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.plan import Map
from convlens.worker.engine.sampling import Folded, Subject

AVAILABLE: Final = find_spec("skimage") is not None
SCALES: Final = (50, 100, 150, 250, 500, 1200)
SIGMAS: Final = (0.5, 0.8)
MIN_SEGMENT: Final = 150
"""Pixels."""
DILATION: Final = 5
"""Pixels a segment is widened by, so that edges, where gradients are, belong to it."""
MIN_GAIN: Final = 50
"""Pixels that a segment must add to those taken before it."""

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class XRAI:
    """Each pixel has the density of attribution of the region it came in with, regions taken best first: (T,H,W).

    Kapishnikov et al., 2019, https://arxiv.org/abs/1906.02825: integrated gradients from black and white, the largest
    of the channels, in segments of Felzenszwalb and Huttenlocher (2004) at several scales. Constants are PAIR's.
    """

    variants: Path = Path()  # noqa: RUF009 - a frozen value
    needs: tuple[Map, ...] = ()

    def fold(self, subject: Subject) -> _Regions:
        """See Sampled."""
        return _Regions(PathIntegral(self.variants, subject, "max"), subject)


class _Regions:
    def __init__(self, integral: PathIntegral, subject: Subject) -> None:
        self._integral = integral
        self._image = subject.image

    def add(self, found: Floats, scores: Floats) -> None:
        self._integral.add(found, scores)

    def result(self) -> Folded:
        folded = self._integral.result()
        masks = segments(self._image)
        maps = [ranked(attribution, masks) for attribution in folded.map]
        return Folded(np.stack(maps), folded.completeness)


def segments(image: Floats) -> Masks:
    """(K,H,W): the segments of an image (H,W,3) at every scale, widened."""
    from skimage.morphology import dilation, disk
    from skimage.segmentation import felzenszwalb

    low, span = image.min(), np.ptp(image)
    scaled = (image - low) / (span or 1) * 2 - 1
    return np.stack(
        [
            dilation(labels == label, footprint=disk(DILATION))
            for scale in SCALES
            for sigma in SIGMAS
            for labels in (felzenszwalb(scaled, scale=scale, sigma=sigma, min_size=MIN_SEGMENT),)
            for label in range(labels.max() + 1)
        ]
    )


def ranked(attribution: Floats, masks: Masks) -> Floats:
    """Takes masks (K,H,W) greedily by the mean of `attribution` (H,W) over what they add, and paints it there.

    Sums and areas of what is left of each mask are kept up to date, so that every pixel is looked at once a mask.
    """
    values = attribution.ravel().astype(np.float64)
    inside = masks.reshape(len(masks), -1)
    areas = inside.sum(1).astype(np.float64)
    sums = inside @ values
    out = np.full(values.shape, np.nan)
    left = np.ones(values.shape, bool)
    for best in _greedy(areas, sums):
        added = np.flatnonzero(inside[best] & left)
        out[added] = sums[best] / areas[best]
        left[added] = False
        taken = inside[:, added]
        areas -= taken.sum(1)
        sums -= taken @ values[added]
    if left.any():
        out[left] = values[left].mean()
    return out.reshape(attribution.shape).astype(np.float32)


def _greedy(areas: npt.NDArray[Any], sums: npt.NDArray[Any]) -> Iterator[int]:
    """The densest mask of those that add enough, until there is none; both arrays change in between."""
    while (enough := areas >= MIN_GAIN).any():
        density = np.full(areas.shape, -np.inf)
        density[enough] = sums[enough] / areas[enough]
        yield int(density.argmax())
