"""A progressive JPEG of very many scans, each over the whole picture, is refused before anything is decoded."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from convlens.v1 import spec_pb2
from convlens.v1.image_formats import MAX_SCANS
from convlens.worker.images import ImageDecoder, UnreadableAtError


def jpeg(scans):
    """A progressive JPEG whose last scan is repeated `scans` times."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


@pytest.mark.parametrize("size", [64, 32])
def test_a_jpeg_of_very_many_scans_is_refused(size):
    reader = ImageDecoder(10_000)
    data = jpeg(MAX_SCANS)
    with pytest.raises(UnreadableAtError, match=f"scans; allowed: {MAX_SCANS}"):
        reader.read([spec_pb2.Image(encoded=b"")], [data], size, size)
    assert reader.read([spec_pb2.Image(encoded=b"")], [jpeg(1)], size, size).shape == (1, size, size, 3)
