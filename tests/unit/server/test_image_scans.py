"""A progressive JPEG of very many scans, each over the whole picture, is refused before anything is decoded."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from convlens.server.settings import ServerSettings
from convlens.server.validation import count_pixels
from convlens.v1 import spec_pb2
from convlens.v1.image_formats import MAX_SCANS, NORMAL_SCANS, PictureError, open_picture
from convlens.v1.status_error import SpecError


def jpeg(scans):
    """A progressive JPEG whose last scan is repeated `scans` times."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def count(data):
    return count_pixels([spec_pb2.Image(encoded=b"")], [data], ServerSettings())


def test_a_jpeg_of_very_many_scans_is_refused_by_the_server():
    with pytest.raises(SpecError, match=f"scans; allowed: {MAX_SCANS}") as caught:
        count(jpeg(MAX_SCANS))
    assert caught.value.field == "spec.images[0].encoded"


def test_a_jpeg_of_very_many_scans_is_not_opened():
    with pytest.raises(PictureError, match=f"scans; allowed: {MAX_SCANS}"):
        open_picture(jpeg(MAX_SCANS))


def test_scans_beyond_the_usual_count_as_pixels():
    assert count(jpeg(1)) == 64 * 64
    assert count(jpeg(4 * NORMAL_SCANS)) == 4 * 64 * 64
