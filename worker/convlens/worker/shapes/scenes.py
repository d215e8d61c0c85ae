"""Scenes for the `shapes` model: one object of a class on a cluttered background, with the object's mask.

Uses NumPy and Pillow alone. A scene is determined by its seed and index (and the libraries' versions), so that
training, tests and the demo use disjoint, reproducible scenes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from convlens.worker.shapes.outlines import RIM, SHAPES, TEXTURES, Points, blob

SIZE = 224
"""Height and width of a scene, pixels."""

LABELS: tuple[str, ...] = (*SHAPES, *TEXTURES)
"""The classes' names, by class index."""

_FINE = 2  # supersampling, for smooth edges
_CANVAS = SIZE * _FINE


class Scene(NamedTuple):
    """One drawn scene."""

    image: npt.NDArray[np.uint8]
    """RGB, (224, 224, 3)."""
    label: int
    """Index into LABELS."""
    mask: npt.NDArray[np.bool_]
    """True inside the object's rim, (224,224); the hole of a ring is included, since it makes the ring."""


def draw(seed: int, index: int) -> Scene:
    """Draw scene `index` of the sequence `seed` (both not negative).

    The class is `index % len(LABELS)`; place, size (diameter 64 to 130 pixels), rotation, colours,
    background and clutter are random. Clutter below the object is plain blobs and lines, which belong to no class.
    """
    rng = np.random.default_rng((seed, index))
    label = index % len(LABELS)
    back = rng.uniform(0.1, 0.9, 3)
    canvas = _draw_background(rng, back)
    _draw_clutter(rng, ImageDraw.Draw(canvas))
    mask = _draw_object(rng, canvas, LABELS[label], back)
    image = np.asarray(canvas.reduce(_FINE), dtype=np.float32)
    light = _smooth_field(rng, 0.85, 1.15)
    image = image * light + rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32) * rng.uniform(2, 12)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), label, np.asarray(mask.reduce(_FINE)) >= 128)


def _draw_background(rng: np.random.Generator, back: npt.NDArray[np.float64]) -> Image.Image:
    """Draw soft patches of colours near `back`, coarse or fine."""
    cells = int(rng.integers(2, 12))
    patches = np.clip(back + rng.uniform(-0.22, 0.22, (cells, cells, 3)), 0, 1)
    return Image.fromarray((patches * 255).astype(np.uint8)).resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC)


def _smooth_field(rng: np.random.Generator, low: float, high: float) -> npt.NDArray[np.float32]:
    """Return a smooth random field (SIZE,SIZE,1), for uneven light."""
    field = Image.fromarray(rng.uniform(low, high, (4, 4)).astype(np.float32))
    return np.asarray(field.resize((SIZE, SIZE), Image.Resampling.BICUBIC))[:, :, None]


def _draw_clutter(rng: np.random.Generator, pen: ImageDraw.ImageDraw) -> None:
    for _ in range(rng.integers(3, 9)):
        outline = _place(rng, blob(rng), centre=rng.uniform(0, _CANVAS, 2), radius=_FINE * rng.uniform(8, 36))
        pen.polygon(_flatten(outline), fill=_rgb(rng.uniform(0, 1, 3)))
    for _ in range(rng.integers(2, 8)):
        ends = rng.uniform(0, _CANVAS, 4).tolist()
        pen.line(ends, fill=_rgb(rng.uniform(0, 1, 3)), width=int(_FINE * rng.integers(1, 5)))


def _draw_object(
    rng: np.random.Generator, canvas: Image.Image, name: str, back: npt.NDArray[np.float64]
) -> Image.Image:
    """Draw the object on the canvas; return the mask of its rim (mode L, the canvas's size)."""
    radius = _FINE * rng.uniform(32, 65)
    centre = rng.uniform(radius, _CANVAS - radius, 2)
    outline = SHAPES[name]() if name in SHAPES else blob(rng)
    outline = _place(rng, outline, centre, radius)
    mask = _draw_mask(canvas.size, outline)
    colour = _contrasting(rng, back)
    canvas.paste(_rgb(colour), mask=mask)
    if name in TEXTURES:
        angle = rng.uniform(0, math.tau)
        wave = math.tau / (_FINE * rng.uniform(10, 18))
        y, x = np.mgrid[:_CANVAS, :_CANVAS].astype(np.float32) * np.float32(wave)
        c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        second = TEXTURES[name](c * x - s * y, s * x + c * y)
        canvas.paste(_rgb(_contrasting(rng, colour)), mask=Image.fromarray(np.where(second, np.asarray(mask), 0)))
    return _draw_mask(canvas.size, outline[:RIM])


def _draw_mask(size: tuple[int, int], outline: Points) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon(_flatten(outline), fill=255)
    return mask


def _place(rng: np.random.Generator, outline: Points, centre: npt.NDArray[np.float64], radius: float) -> Points:
    """Scale the outline, rotate it by a random angle and move it to `centre` (canvas pixels)."""
    angle = rng.uniform(0, math.tau)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return radius * outline @ turn + centre


def _contrasting(rng: np.random.Generator, colour: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a random colour that contrasts with `colour` (both 0…1)."""
    candidates = rng.uniform(0, 1, (8, 3))
    contrasting: npt.NDArray[np.float64] = candidates[np.argmax(np.abs(candidates - colour).sum(axis=1) > 0.9)]
    return contrasting


def _flatten(points: Points) -> list[float]:
    flat: list[float] = points.ravel().tolist()
    return flat


def _rgb(colour: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(255 * channel) for channel in colour)
    return red, green, blue
