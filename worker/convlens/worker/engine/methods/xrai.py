"""XRAI: regions of the image, ranked by their attribution. Needs scikit-image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from convlens.worker.engine.methods.integrated_gradients import PathIntegral, StraightPath
from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.perturbation import MethodResult, Original
from convlens.worker.engine.plan import Map

AVAILABLE: Final = find_spec("skimage") is not None
SCALES: Final = (50, 100, 150, 250, 500, 1200)
SIGMAS: Final = (0.5, 0.8)
MIN_SEGMENT: Final = 150
"""Pixels."""
DILATION: Final = 5
"""Pixels by which a segment is widened, so that it includes its edges, where gradients are."""
MIN_GAIN: Final = 50
"""Pixels that a segment must add to those already ranked."""

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class XRAI:
    """The attribution per pixel of the region that first covers a pixel, regions ranked by density.

    Kapishnikov et al., 2019, https://arxiv.org/abs/1906.02825: integrated gradients from black and white, the maximum
    over the channels, in segments of Felzenszwalb and Huttenlocher (2004) at several scales. Constants are those of
    PAIR's saliency library. Gives (N,T,H,W) float32, and completeness as IntegratedGradients does.
    """

    perturbation: StraightPath = StraightPath()  # noqa: RUF009 - a frozen value
    required_maps: tuple[Map, ...] = ()

    def accumulate(self, original: Original) -> _Regions:
        """See PerturbationMethod."""
        return _Regions(PathIntegral(self.perturbation, original, "max"), original)


class _Regions:
    def __init__(self, integral: PathIntegral, original: Original) -> None:
        self._integral = integral
        self._image = original.image

    def add(self, evaluation: Floats, scores: Floats) -> None:
        self._integral.add(evaluation, scores)

    def result(self) -> MethodResult:
        integrated = self._integral.result()
        masks = segment(self._image)
        maps = [rank_regions(attribution, masks) for attribution in integrated.map]
        return MethodResult(np.stack(maps), integrated.completeness)


def segment(image: Floats) -> Masks:
    """Segment an image (H,W,3) at every scale; return the widened masks (K,H,W)."""
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


def rank_regions(attribution: Floats, masks: Masks) -> Floats:
    """Paint each pixel of `attribution` (H,W) with the density of the first of `masks` (K,H,W) that covers it.

    Masks are chosen greedily by the mean attribution over the pixels that they add. The sum and area of what remains of
    each mask are updated incrementally, so that every pixel is read once per mask.
    """
    values = attribution.ravel().astype(np.float64)
    inside = masks.reshape(len(masks), -1)
    areas = inside.sum(1).astype(np.float64)
    sums = inside @ values
    out = np.full(values.shape, np.nan)
    uncovered = np.ones(values.shape, bool)
    for best in _by_density(areas, sums):
        added = np.flatnonzero(inside[best] & uncovered)
        out[added] = sums[best] / areas[best]
        uncovered[added] = False
        overlaps = inside[:, added]
        areas -= overlaps.sum(1)
        sums -= overlaps @ values[added]
    if uncovered.any():
        out[uncovered] = values[uncovered].mean()
    return out.reshape(attribution.shape).astype(np.float32)


def _by_density(areas: npt.NDArray[Any], sums: npt.NDArray[Any]) -> Iterator[int]:
    """Yield the densest mask of those that add MIN_GAIN pixels; the caller updates both arrays in between."""
    while (enough := areas >= MIN_GAIN).any():
        density = np.full(areas.shape, -np.inf)
        density[enough] = sums[enough] / areas[enough]
        yield int(density.argmax())
