"""Photos under the maps that the gateway draws: what they cost, and at which size they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convlens.client.images import SentImage, picture
from convlens.v1.image_formats import needs_own_process, open_picture
from convlens.web.problems import Problem
from convlens.web.settings import MAX_DRAWN_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_DECODED_BYTES: Final = 8
"""Bytes that each pixel of a photo takes while it is decoded."""
_DRAWN_BYTES: Final = 72
"""Bytes that each pixel of a picture takes while it is drawn."""


def bytes_to_draw(photo: bytes) -> int:
    """Return the bytes of memory that drawing on a photo takes. Raises Problem 422 where it is not drawn on."""
    if needs_own_process(photo):
        message = (
            "image: the gateway does not draw on AVIF, JPEG 2000 and run-length BMP; ask for application/json, or send "
            "JPEG, PNG or WebP"
        )
        raise Problem(422, "INVALID_FIELD", message, field="image")
    try:
        with open_picture(photo) as file:
            pixels = file.width * file.height
    except Exception:  # noqa: BLE001 - Pillow raises any type; server or worker refuse the file, and say why
        return 0
    return _DECODED_BYTES * pixels + _DRAWN_BYTES * min(pixels, MAX_DRAWN_PIXELS)


def photo_to_draw(photo: SentImage) -> PillowImage:
    """Return a photo at its own size, or reduced to MAX_DRAWN_PIXELS."""
    image = picture(photo)
    excess = image.width * image.height / MAX_DRAWN_PIXELS
    if excess <= 1:
        return image
    return image.resize((max(1, int(image.width / excess**0.5)), max(1, int(image.height / excess**0.5))))
