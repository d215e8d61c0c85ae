"""Measures of a map's quality, by a mask of the object or by the score of perturbed images. Uses NumPy alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from convlens.worker.engine.outputs import Floats

Masks = npt.NDArray[np.bool_]
Score = Callable[[Floats], Floats]
"""The scores of images: (n,H,W,3) float32 in 0…255 to (n,)."""


def pointing(maps: Floats, masks: Masks) -> Masks:
    """Return True where the maximum of a map lies in its mask; both are (N,H,W), the result (N,).

    The pointing game of Zhang et al., 2018, https://arxiv.org/abs/1608.00507. The first of several maxima counts; a
    constant map is a miss.
    """
    flat = maps.reshape(len(maps), -1)
    hit = masks.reshape(flat.shape)[np.arange(len(flat)), flat.argmax(1)]
    scored: Masks = hit & (np.ptp(flat, 1) > 0)
    return scored


def mass_inside(maps: Floats, masks: Masks) -> Floats:
    """Return the share of a map's positive values that lies in its mask, (N,); 0 for a map without positive values.

    The energy-based pointing game of Wang et al., 2020, https://arxiv.org/abs/1910.01279.
    """
    positive = np.maximum(maps, 0).astype(np.float64)
    inside, whole = (positive * masks).sum((1, 2)), positive.sum((1, 2))
    share: Floats = np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0).astype(np.float32)
    return share


def deletion(map_: Floats, image: Floats, blank: Floats, score: Score, steps: int = 14) -> float:
    """Return the area under the score as pixels turn from `image` to `blank`, the largest values of the map first.

    Petsiuk et al., 2018, https://arxiv.org/abs/1806.07421. The map is (H,W), the images (H,W,3); in `steps` equal
    shares of the pixels, by the trapezoidal rule over 0…1. Lower is better.
    """
    order = np.argsort(-map_.ravel(), kind="stable")
    images = np.repeat(image[None].astype(np.float32), steps + 1, 0).reshape(steps + 1, -1, 3)
    for step in range(1, steps + 1):
        removed = order[: round(len(order) * step / steps)]
        images[step, removed] = blank.reshape(-1, 3)[removed]
    curve = score(images.reshape(steps + 1, *image.shape)).astype(np.float64)
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def insertion(map_: Floats, image: Floats, blank: Floats, score: Score, steps: int = 14) -> float:
    """Return the area under the score as pixels turn from `blank` to `image`. Higher is better."""
    return deletion(map_, blank, image, score, steps)
