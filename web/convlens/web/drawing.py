"""Photos under the maps that the gateway draws: what they cost, and at which size they are drawn."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from PIL import Image, UnidentifiedImageError

from convlens.client.images import SentImage, picture
from convlens.web.problems import Problem
from convlens.web.settings import MAX_DRAWN_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_DECODED_BYTES: Final = 8
"""Bytes that each pixel of a photo takes while it is decoded."""
_DRAWN_BYTES: Final = 72
"""Bytes that each pixel of a picture takes while it is drawn."""
_ISOLATED: Final = frozenset({"AVIF", "JPEG2000"})
"""Formats that only processes of their own decode, since a file may need more memory than its header says."""


def bytes_to_draw(photo: bytes) -> int:
    """Return the bytes of memory that drawing on a photo takes. Raises Problem 422 where it is not drawn on."""
    try:
        with Image.open(io.BytesIO(photo)) as file:
            name, pixels = file.format, file.width * file.height
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0  # the server refuses it, and says why
    if name in _ISOLATED:
        message = f"image: the gateway does not draw on {name}; ask for application/json, or send JPEG, PNG or WebP"
        raise Problem(422, "INVALID_FIELD", message, field="image")
    return _DECODED_BYTES * pixels + _DRAWN_BYTES * min(pixels, MAX_DRAWN_PIXELS)


def photo_to_draw(photo: SentImage) -> PillowImage:
    """Return a photo at its own size, or reduced to MAX_DRAWN_PIXELS."""
    image = picture(photo)
    excess = image.width * image.height / MAX_DRAWN_PIXELS
    if excess <= 1:
        return image
    return image.resize((max(1, int(image.width / excess**0.5)), max(1, int(image.height / excess**0.5))))
