"""Float pixels have the stated range, or the only one they can have; ambiguous ones are refused with a remedy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convlens.v1 import spec_pb2
from convlens.v1.value_ranges import RANGES, UNMISTAKABLE, explain_refusal, to_255

UNSPECIFIED = spec_pb2.VALUE_RANGE_UNSPECIFIED


def test_every_range_of_the_wire_can_be_stated():
    assert {UNSPECIFIED, *RANGES.values()} == set(spec_pb2.ValueRange.values())


@pytest.mark.parametrize("stated", RANGES.items(), ids=str)
def test_a_stated_range_accepts_values_within_it_and_no_others(stated):
    (black, white), number = stated
    assert explain_refusal(black, white, number) is None
    assert explain_refusal(white, white, number) is None
    for low, high in ((black - 0.01, white), (black, white + 0.01), (math.nan, math.nan), (black, math.inf)):
        assert f"within {black}…{white}, found" in explain_refusal(low, high, number)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, UNMISTAKABLE), (3, 3)])
def test_without_a_stated_range_only_unambiguous_values_are_read_as_0_to_255(low, high):
    assert explain_refusal(low, high, UNSPECIFIED) is None


@pytest.mark.parametrize(
    ("low", "high", "remedy"),
    [
        (0, 1, "multiply them by 255, or say value_range=(0, 1)"),
        (0, 0, "say value_range=(0, 255)"),
        (0, 1.9, "multiply them by 255"),
        (-1, 1, "say value_range=(-1, 1)"),
        (-1e-6, 1, "say value_range=(-1, 1)"),
        (-124, 151, "give the photo as it is"),
        (-2.1, 2.6, "give the photo as it is"),
        (0, 65535, "scale them to 0…255"),
        (math.nan, math.nan, "must be finite"),
    ],
)
def test_ambiguous_values_are_refused_with_the_remedy(low, high, remedy):
    assert remedy in explain_refusal(low, high, UNSPECIFIED)


def test_pixels_of_0_to_255_are_not_copied_and_others_are_scaled():
    pixels = np.array([0, 1.5, 255], np.float32)
    assert to_255(pixels, UNSPECIFIED) is pixels
    for (black, white), number in RANGES.items():
        scaled = to_255(np.array([black, (black + white) / 2, white], np.float32), number)
        assert scaled.dtype == np.float32
        assert scaled.tolist() == [0, 127.5, 255]


def test_floats_computed_from_bytes_become_these_bytes_again():
    levels = np.arange(256, dtype=np.uint8)
    for floats, stated in (
        (levels.astype(np.float32), UNSPECIFIED),
        (np.float32(levels / 255), spec_pb2.VALUE_RANGE_0_1),
        (levels / np.float32(255), spec_pb2.VALUE_RANGE_0_1),
        (np.float32(levels / 127.5 - 1), spec_pb2.VALUE_RANGE_MINUS_1_1),
    ):
        scaled = to_255(floats, stated)
        assert scaled.dtype == np.uint8
        assert scaled.tolist() == levels.tolist()
    assert to_255(np.array([3, 4.01], np.float32), UNSPECIFIED).dtype == np.float32


def test_a_refused_value_is_printed_with_enough_digits_to_show_the_fault():
    assert "found 0…255.0001" in explain_refusal(0, float(np.float32(255.0001)), UNSPECIFIED)
    assert "found 0…1.000001;" in explain_refusal(0, float(np.float32(1.000001)), spec_pb2.VALUE_RANGE_0_1)
    assert "found 0…65535;" in explain_refusal(0, 65535, UNSPECIFIED)
