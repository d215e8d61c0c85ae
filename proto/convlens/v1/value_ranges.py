"""The range of float pixels: which values are black and white.

The client applies these rules before it sends, server and worker apply them to what other clients send.
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
"""The ranges that callers can state, as (black, white)."""
_BOUNDS: Final = {number: bounds for bounds, number in RANGES.items()}
UNMISTAKABLE: Final = 2.0
"""Unless some pixel is as large, they are more likely in 0…1 than nearly black in 0…255; resizing overshoots 1."""

ROUNDING: Final = 1e-3
"""The largest rounding error, in levels of 0…255, of bytes that were divided and multiplied as floats."""


def explain_refusal(low: float, high: float, value_range: spec_pb2.ValueRange.ValueType) -> str | None:
    """Say why float pixels from `low` to `high` are not accepted as `value_range`, and the remedy; None if they are.

    Where any pixel is NaN, both bounds are.
    """
    black, white = _BOUNDS.get(value_range, (0, 255))
    problem = f"float pixels must be finite and within {black}…{white}, found {_digits(low)}…{_digits(high)}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return problem
    if value_range in _BOUNDS:
        is_inside = black <= low and high <= white
        return None if is_inside else f"{problem}; clip them, or state another value_range than ({black}, {white})"
    if -1 <= low < 0 and high <= 1:
        return f"{problem}; say value_range=(-1, 1) where -1 is black and 1 is white"
    if low < 0:
        return f"{problem}; give the photo as it is, since the worker preprocesses it as the model needs"
    if high > white:
        return f"{problem}; scale them to 0…255"
    if high < UNMISTAKABLE:
        return (
            f"no value of the float pixels exceeds {_digits(high)}, which is nearly black in 0…255: multiply them by "
            "255, or say value_range=(0, 1); where they are as dark as that, say value_range=(0, 255)"
        )
    return None


def _digits(bound: float) -> str:
    """Format a float32 in the fewest digits that distinguish it from others: 255.0001 is not 255."""
    return str(np.float32(bound)).removesuffix(".0")


def to_255(pixels: Floats, value_range: spec_pb2.ValueRange.ValueType) -> Floats | npt.NDArray[np.uint8]:
    """Scale pixels of `value_range`, which explain_refusal() accepts, to 0…255.

    Returns uint8 where all are whole numbers but for rounding, since they are then the same photo as those bytes and
    must be resized alike; float32 otherwise, `pixels` itself where they are 0…255 already.
    """
    scaled = pixels
    if value_range == spec_pb2.VALUE_RANGE_0_1:
        scaled = pixels * np.float32(255)
    elif value_range == spec_pb2.VALUE_RANGE_MINUS_1_1:
        scaled = (pixels + np.float32(1)) * np.float32(127.5)
    whole = np.rint(scaled)
    return whole.astype(np.uint8) if np.abs(scaled - whole).max(initial=0) <= ROUNDING else scaled
