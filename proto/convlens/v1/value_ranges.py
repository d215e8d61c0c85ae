"""What the values of float pixels mean: which of them stand for black and for white.

The client refuses by these rules before it sends, server and worker whatever other clients send.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from convlens.v1 import spec_pb2

Floats = npt.NDArray[np.float32]

RANGES: Final[dict[tuple[int, int], spec_pb2.ValueRange.ValueType]] = {
    (0, 255): spec_pb2.VALUE_RANGE_0_255,
    (0, 1): spec_pb2.VALUE_RANGE_0_1,
    (-1, 1): spec_pb2.VALUE_RANGE_MINUS_1_1,
}
"""The ranges that can be stated, as callers write them: (black, white)."""
_BOUNDS: Final = {number: bounds for bounds, number in RANGES.items()}
UNMISTAKABLE: Final = 2.0
"""Pixels without a value as large are nearly black in 0…255, and more likely in 0…1: resizing overshoots 1 a little."""

WHOLE: Final = 1e-3
"""Levels of 0…255 by which a whole number is missed at most, where a photo of bytes was divided and multiplied."""


def refusal(low: float, high: float, value_range: spec_pb2.ValueRange.ValueType) -> str | None:
    """Why float pixels from `low` to `high` cannot be taken as spanning `value_range`, and the remedy.

    None where they can. NaN anywhere makes both bounds NaN.
    """
    black, white = _BOUNDS.get(value_range, (0, 255))
    wrong = f"float pixels must be finite and within {black}…{white}, found {_digits(low)}…{_digits(high)}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return wrong
    if value_range in _BOUNDS:
        inside = black <= low and high <= white
        return None if inside else f"{wrong}; clip them, or state another value_range than ({black}, {white})"
    if -1 <= low < 0 and high <= 1:
        return f"{wrong}; say value_range=(-1, 1) where -1 is black and 1 is white"
    if low < 0:
        return f"{wrong}; give the photo as it is, since the worker preprocesses it as the model needs"
    if high > white:
        return f"{wrong}; scale them to 0…255"
    if high < UNMISTAKABLE:
        return (
            f"no value of the float pixels exceeds {_digits(high)}, which is nearly black in 0…255: multiply them by "
            "255, or say value_range=(0, 1); where they are as dark as that, say value_range=(0, 255)"
        )
    return None


def _digits(bound: float) -> str:
    """The float32 in as few digits as tell it from others: 255.0001 is not 255."""
    return str(np.float32(bound)).removesuffix(".0")


def to_255(pixels: Floats, value_range: spec_pb2.ValueRange.ValueType) -> Floats | npt.NDArray[np.uint8]:
    """Pixels that span `value_range`, and that refusal() lets pass, spanning 0…255.

    uint8 where all are whole numbers, but for the rounding of floats: they are the same photo, which is to be resized
    alike. Others that span 0…255 already are returned themselves.
    """
    spanning = pixels
    if value_range == spec_pb2.VALUE_RANGE_0_1:
        spanning = pixels * np.float32(255)
    elif value_range == spec_pb2.VALUE_RANGE_MINUS_1_1:
        spanning = (pixels + np.float32(1)) * np.float32(127.5)
    whole = np.rint(spanning)
    return whole.astype(np.uint8) if np.abs(spanning - whole).max(initial=0) <= WHOLE else spanning
