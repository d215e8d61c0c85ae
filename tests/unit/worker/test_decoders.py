"""An image that is decoded in another process is to the bit what it is in this one."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from convlens.v1 import spec_pb2
from convlens.worker.decoders import Decoders
from convlens.worker.images import ImageUnreadableError, Reader, UnreadableAtError

PHOTO = Image.fromarray(np.random.default_rng(2).integers(0, 256, (90, 70, 3), np.uint8))
FILE = spec_pb2.Image(encoded=b"")


@pytest.fixture(scope="module")
def decoders():
    """Two of them."""
    found = Decoders(2, 10_000)
    yield found
    found.close()


def encoded(kind, picture=PHOTO):
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_same(decoders, channels):
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF")
    data = [*map(encoded, kinds), encoded("PNG", PHOTO.convert("RGBA").rotate(9))]
    images = [FILE] * len(data)
    here = Reader(10_000).read(images, data, 20, 30, channels=channels)
    there = Reader(10_000).read(images, data, 20, 30, channels=channels, decode=decoders.read)
    np.testing.assert_array_equal(there, here)


def test_what_is_wrong_is_told_of_the_image(decoders):
    data = [encoded("PNG"), encoded("PNG")[:60]]
    with pytest.raises(UnreadableAtError, match="damaged or truncated") as caught:
        Reader(10_000).read([FILE] * 2, data, 8, 8, 4, decode=decoders.read)
    assert caught.value.index == 5


def test_the_bound_on_pixels_holds_there_too(decoders):
    with pytest.raises(ImageUnreadableError, match="40000 pixels, 10000 are allowed"):
        decoders.read(FILE, encoded("PNG", PHOTO.resize((200, 200))), np.empty((8, 8, 3), np.uint8))


def test_a_process_that_was_ended_is_replaced(decoders):
    into = np.empty((8, 8, 3), np.uint8)
    decoders.read(FILE, encoded("PNG"), into)
    for _ in range(2):
        if process := decoders._idle.get():
            process.kill()
        decoders._idle.put(process)
    decoders.read(FILE, encoded("PNG"), into)
