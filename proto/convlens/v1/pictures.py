"""Pillow image → upright 8-bit RGB.

The client converts Pillow images and the photos of figures, the worker files, all by this one function, so that the
same picture gives the same pixels. Pillow is imported where it is used: the wire does not depend on it.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from convlens.v1.image_formats import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

ORIENTATION: Final = 0x0112
"""The EXIF tag."""
_WHITE_IS_ZERO: Final = (262, 0)
"""TIFF's tag PhotometricInterpretation, and its value for grey of which 0 is white."""
TWELVE_BITS: Final = 1 << 12
WHITE: Final = 255


def check_mode(image: PillowImage) -> None:
    """Raise PictureError for a mode that does not say which value is white. Decodes nothing."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        kind = "float" if image.mode == "F" else "32-bit"
        raise PictureError(
            f"a {kind} picture (mode {image.mode}) does not say which value is white; scale it to 8 bits, or give an "
            "array: floats with value_range"
        )


def to_rgb(image: PillowImage) -> PillowImage:
    """Return the image's current frame, upright, as a Pillow image of mode RGB; `image` is decoded, not changed.

    It is `image` itself where nothing has to be converted: a copy of a large one takes hundreds of megabytes.

    EXIF orientation is applied. Palettes are looked up, grey is repeated, CMYK and other colour spaces are converted as
    Pillow does, of 16 bits the upper 8 are kept, and transparency is laid over white, as a viewer shows it (the colour
    under a transparent pixel is whatever the program that wrote it left there). Colour profiles are ignored.

    Raises PictureError for modes F and I, and for 16 bits of which only the lower 12 are used, since it is unknown what
    is white; and for a transparent colour of 16 bits, which pixels of 8 bits cannot be compared with.
    """
    check_mode(image)
    _check_transparent_colour(image)
    image.load()
    if image.mode.startswith("I"):  # also I, as which older versions of Pillow open PNGs of 16 bits
        image = _upper_bits(image)
    elif image.mode == "La":
        image = image.convert("LA")
    image = _upright(image)
    if image.has_transparency_data:
        from PIL import Image

        over_white = Image.new("RGBA", image.size, "white")
        over_white.alpha_composite(_with_transparent_grey(image).convert("RGBA"))
        image = over_white
    return image if image.mode == "RGB" else image.convert("RGB")


def _check_transparent_colour(image: PillowImage) -> None:
    """Raise PictureError for RGB of 16 bits with a transparent colour: Pillow reads 8 bits of the pixels."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and max(colour) > WHITE:
        raise PictureError(
            f"the transparent colour {colour} has 16 bits, of which the pixels keep 8; save the picture with an alpha "
            "channel, or in 8 bits"
        )


def _with_transparent_grey(image: PillowImage) -> PillowImage:
    """Return the image with its transparent level scaled to 0…255, as its pixels are.

    Pillow scales pixels of 1, 2 and 4 bits to 8, but not this level. Its bits are the fewest that fit all pixels.
    """
    level = image.info.get("transparency")
    if image.mode not in {"1", "L"} or not isinstance(level, int) or not 1 <= level < 1 << 4:
        return image
    used = np.flatnonzero(image.histogram())
    scales = (
        WHITE // ((1 << bits) - 1) for bits in (1, 2, 4) if level < 1 << bits and (image.mode == "L") == (bits > 1)
    )
    scale = next((scale for scale in scales if not (used % scale).any()), 1)
    scaled = image.copy()
    scaled.info["transparency"] = level * scale
    return scaled


def _upright(image: PillowImage) -> PillowImage:
    """Apply the EXIF orientation, as Pillow's exif_transpose does, but without copying an upright image."""
    from PIL.Image import Transpose

    method = None
    with contextlib.suppress(struct.error, SyntaxError, ValueError, TypeError, KeyError):  # no readable EXIF
        method = {
            2: Transpose.FLIP_LEFT_RIGHT,
            3: Transpose.ROTATE_180,
            4: Transpose.FLIP_TOP_BOTTOM,
            5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270,
            7: Transpose.TRANSVERSE,
            8: Transpose.ROTATE_90,
        }.get(image.getexif().get(ORIENTATION, 1))
    return image if method is None else image.transpose(method)


def _upper_bits(image: PillowImage) -> PillowImage:
    """Convert 16-bit grey to its upper 8 bits, keeping EXIF; Pillow's own conversion clips instead of scaling."""
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    if values.max(initial=0) < TWELVE_BITS:
        raise PictureError(
            f"no value of the 16-bit picture exceeds {values.max(initial=0)}: it seems to have 12 or 8 bits in 16; "
            "scale it to 8 bits, so that 255 is white"
        )
    tag, white_is_zero = _WHITE_IS_ZERO
    if getattr(image, "tag_v2", {}).get(tag) == white_is_zero:
        raise PictureError("a 16-bit TIFF in which 0 is white is not read; convert it to 8 bits")
    grey = (values >> 8).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[values == transparent] = 255
    upper = Image.fromarray(grey)
    upper.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return upper
