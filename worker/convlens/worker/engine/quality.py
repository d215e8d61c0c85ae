"""How good a map is, where it is known what it should show. Knows NumPy alone; a network is a callable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from convlens.worker.engine.outputs import Floats

Masks = npt.NDArray[np.bool_]
Score = Callable[[Floats], Floats]
"""The score of each of some variants of an image: (n,H,W,3) float32 in 0…255 to (n,)."""


def pointing(maps: Floats, masks: Masks) -> Masks:
    """True where the largest value of a map lies in its mask; both (N,H,W), gives (N,).

    The pointing game of Zhang et al., 2018, https://arxiv.org/abs/1608.00507. The first of several largest counts; a
    flat map points nowhere.
    """
    flat = maps.reshape(len(maps), -1)
    hit = masks.reshape(flat.shape)[np.arange(len(flat)), flat.argmax(1)]
    return hit & (np.ptp(flat, 1) > 0)


def mass_inside(maps: Floats, masks: Masks) -> Floats:
    """The share of a map's positive values that lies in its mask, (N,); 0 for a map without any.

    The energy-based pointing game of Wang et al., 2020, https://arxiv.org/abs/1910.01279.
    """
    positive = np.maximum(maps, 0).astype(np.float64)
    inside, whole = (positive * masks).sum((1, 2)), positive.sum((1, 2))
    return np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0).astype(np.float32)


def deletion(map_: Floats, image: Floats, blank: Floats, score: Score, steps: int = 14) -> float:
    """The area under the score as pixels turn from `image` to `blank`, those with the largest values of the map first.

    Petsiuk et al., 2018, https://arxiv.org/abs/1806.07421. The map is (H,W), the images (H,W,3); in `steps` equal
    shares of the pixels, by the trapezoidal rule over 0…1. Lower is better: what the map calls important was.
    """
    order = np.argsort(-map_.ravel(), kind="stable")
    variants = np.repeat(image[None].astype(np.float32), steps + 1, 0).reshape(steps + 1, -1, 3)
    for step in range(1, steps + 1):
        gone = order[: round(len(order) * step / steps)]
        variants[step, gone] = blank.reshape(-1, 3)[gone]
    curve = score(variants.reshape(steps + 1, *image.shape)).astype(np.float64)
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def insertion(map_: Floats, image: Floats, blank: Floats, score: Score, steps: int = 14) -> float:
    """The same as pixels turn from `blank` to `image`. Higher is better."""
    return deletion(map_, blank, image, score, steps)
