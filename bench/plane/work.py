"""The work of every service: images in, maps of zeros out. Knows NumPy and Pillow, and no service.

`raw`: 224×224 RGB pixels in (150,528 bytes), float32 224×224 out (200,704 bytes). `jpeg`: a JPEG of 224×224 in, uint8
224×224 out. `photo`: the same with a JPEG of the photo's full size. No two images are equal, so that nobody can answer
from a cache.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE: Final = 224
RAW_BYTES: Final = SIDE * SIDE * 3
MAP: Final = (SIDE, SIDE)
PHOTOS: Final = Path(__file__).parents[2] / "examples" / "photos"
QUALITY: Final = 90
FLOATS, STEPS = np.zeros(MAP, np.float32), np.zeros(MAP, np.uint8)
"""A model's output, created once, as that of the null model; serializing it is the service's work."""
_COMMENT: Final = b"\xff\xfe\x00\x0a"
"""The head of a JPEG comment of eight bytes."""

Array = npt.NDArray[np.generic]


def bodies(kind: str) -> Iterator[bytes]:
    """Yield images of a kind as bytes, endlessly, each with its own number in its first pixels or in a JPEG comment."""
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.[jp][pn]g"))]
    if kind != "photo":
        photos = [photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR) for photo in photos]
    files = [photo.tobytes() if kind == "raw" else _jpeg(photo) for photo in photos]
    for number, body in enumerate(itertools.cycle(files)):
        stamp = number.to_bytes(8, "little")
        yield stamp + body[8:] if kind == "raw" else body[:2] + _COMMENT + stamp + body[2:]


def answer(body: bytes) -> bytes:
    """Return a service's reply to one image: zeros of the kind's map, after the pixels were decoded."""
    if len(body) == RAW_BYTES:
        np.frombuffer(body, np.uint8).reshape(SIDE, SIDE, 3)
        return FLOATS.tobytes()
    decode(body)
    return STEPS.tobytes()


def decode(body: bytes) -> Array:
    """Return a JPEG's pixels at the model's size."""
    image = Image.open(io.BytesIO(body)).convert("RGB")
    return np.asarray(image if image.size == MAP else image.resize(MAP, Image.Resampling.BILINEAR))


def received(kind: str, body: bytes | bytearray | memoryview) -> Array:
    """Return the array that a client reads from a reply."""
    return np.frombuffer(body, np.float32 if kind == "raw" else np.uint8).reshape(MAP)


def _jpeg(photo: Image.Image) -> bytes:
    out = io.BytesIO()
    photo.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
