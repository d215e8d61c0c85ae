"""The classes of `shapes`: outlines of unit radius, and the patterns of the textured classes; scenes.py draws them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Points: TypeAlias = npt.NDArray[np.float64]
"""Corners of a closed polygon, (n,2) as x, y, inscribed in the unit circle."""

RIM = 64
"""The most corners of an outline's rim; further corners surround a hole."""


def _arc(start: float, stop: float, radius: float = 1.0, corners: int = RIM) -> Points:
    """Return points of an arc about the origin; angles in turns."""
    angle = np.linspace(start, stop, corners) * math.tau
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _regular(corners: int, radii: tuple[float, ...] = (1.0,)) -> Points:
    """Return corners at equal angles with cyclic radii: a polygon with one radius, a star with two."""
    return _arc(0, 1 - 1 / corners, corners=corners) * np.resize(radii, corners)[:, None]


def _cross() -> Points:
    arm = 0.34
    reach = math.sqrt(1 - arm * arm)
    quarter = np.array([[reach, -arm], [reach, arm], [arm, arm]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, n) for n in range(4)])


def _heart() -> Points:
    t = np.linspace(0, math.tau, RIM, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2.5], axis=1) / 17


def _arrow() -> Points:
    half = np.array([[1.0, 0.0], [0.15, 0.85], [0.15, 0.34], [-0.94, 0.34]])
    return np.concatenate([half, (half * [1, -1])[:0:-1]])


def _ring() -> Points:
    # one closed line with a seam: the even-odd rule leaves the hole open
    return np.concatenate([_arc(0, 1), _arc(1, 0, radius=0.42)])


SHAPES: dict[str, Callable[[], Points]] = {
    "disc": lambda: _arc(0, 1),
    "ring": _ring,
    "triangle": lambda: _regular(3),
    "square": lambda: _regular(4),
    "star": lambda: _regular(10, (1.0, 0.42)),
    "cross": _cross,
    "heart": _heart,
    "arrow": _arrow,
}
"""Classes with an outline of their own and a plain fill."""


def blob(rng: np.random.Generator) -> Points:
    """Return an outline that is none of SHAPES: a smooth, irregular closed curve."""
    angle = np.linspace(0, math.tau, RIM, endpoint=False)
    waves = sum(0.3 / math.sqrt(k) * np.cos(k * angle + rng.uniform(0, math.tau)) for k in (2, 3, 5))
    radius = np.exp(waves)
    return (radius / radius.max())[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _stripes(u: npt.NDArray[np.float32], _v: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    return np.sin(u) > 0


def _chequers(u: npt.NDArray[np.float32], v: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    return (np.sin(u) > 0) ^ (np.sin(v) > 0)


def _dots(u: npt.NDArray[np.float32], v: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    return np.cos(u) + np.cos(v) > 0.6


TEXTURES: dict[str, Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.bool_]]] = {
    "stripes": _stripes,
    "chequers": _chequers,
    "dots": _dots,
}
"""Classes with a pattern of their own and any outline: phases in radians to a mask of the second colour."""
