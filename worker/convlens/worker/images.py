"""Images as they were sent to RGB arrays of a model's input size.

Knows Pillow, simplejpeg and the wire's Image message; knows neither jobs nor networks.

What is done, in this order, and nothing else:
 1. The format is told by the file's content: JPEG, PNG, WebP, GIF (first frame) or BMP. Other formats Pillow could read
    are refused before their parsers see a byte.
 2. Width × height is held against the limit before a pixel is decoded.
 3. The pixels are decoded in full; a truncated or damaged file is an error and never a half-grey image. JPEG's draft
    mode (decoding at a fraction of the size) is not used: it saves time on large photos only, and moves pixels by
    several levels, which shows in a gradient map.
 4. EXIF orientation is applied.
 5. Colour becomes 8-bit RGB: palettes are looked up, grey is repeated, CMYK is converted as Pillow does, of 16 bits the
    upper 8 are kept, transparency is laid over white, as a viewer shows it (the colour under a transparent pixel is
    whatever the program that wrote it left there). Colour profiles are ignored, as Keras ignores them.
 6. The image is resized to the model's input with Pillow's BILINEAR (antialiased when it shrinks), aspect ratio not
    kept: to the bit what keras.utils.load_img(..., target_size, interpolation="bilinear") gives. An image that has the
    size already is left as it is.

A JPEG that is as the model wants it is decoded by simplejpeg straight into its place; the pixels are those of Pillow.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from convlens.v1 import codec, spec_pb2, tensor_pb2

Data = bytes | memoryview
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

THREADS: Final = 8
"""At most; each may hold an image of the largest size."""
PART_BYTES: Final = 64 << 10
"""Bytes of files that are worth a thread."""
_APP1, _SCAN = 0xE1, 0xDA
"""Markers of a JPEG's segments: EXIF and XMP, which may tell that an image is not upright; the first scan."""

# The limit is ours, a setting, and stricter; Pillow's own would warn from a thread that nobody reads.
Image.MAX_IMAGE_PIXELS = None


class ImageUnreadableError(ValueError):
    """An image that cannot be had from what was sent; the message says why, for people."""


class UnreadableAtError(ImageUnreadableError):
    """One image of several that cannot be read."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


class Reader:
    """Reads images of up to `max_pixels` pixels, large files and many of them in several threads.

    Decoders run without the interpreter's lock.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._most = min(THREADS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(self._most, thread_name_prefix="decode")

    def read(
        self, images: Sequence[spec_pb2.Image], data: Sequence[Data], height: int, width: int, first: int = 0
    ) -> Pixels:
        """Images described by `images`, of the bytes `data`, as one array (N, height, width, 3), RGB in 0…255.

        uint8, or float32 when any was sent as float32.

        Raises UnreadableAt, which carries the index of the first image that cannot be read, counted from `first`.
        """
        if height * width <= self._max_pixels and (lying := _as_they_lie(images, data, (height, width, 3))) is not None:
            return lying
        floats = any(image.pixels.datatype == tensor_pb2.DATA_TYPE_FP32 for image in images)
        pixels: Any = np.empty((len(images), height, width, 3), np.float32 if floats else np.uint8)

        def part(rows: range) -> None:
            for row in rows:
                try:
                    _read_image(images[row], data[row], pixels[row], self._max_pixels)
                except ImageUnreadableError as error:
                    raise UnreadableAtError(first + row, str(error)) from error

        count = len(images)
        files = sum(len(file) for image, file in zip(images, data, strict=True) if not image.HasField("pixels"))
        parts = max(1, min(self._most, count, files // PART_BYTES))
        own, *others = (range(count * i // parts, count * (i + 1) // parts) for i in range(parts))
        helped = [self._threads.submit(part, rows) for rows in others]
        part(own)
        for helper in helped:
            helper.result()
        return cast("Pixels", pixels)


def _as_they_lie(
    images: Sequence[spec_pb2.Image], data: Sequence[Data], shape: tuple[int, int, int]
) -> npt.NDArray[np.uint8] | None:
    """A view of pixels that have the model's size and lie one image behind another, as those of one pack do.

    None for any others: they are to be copied.
    """
    size = math.prod(shape)
    for image, pixels in zip(images, data, strict=True):
        about = image.pixels
        if len(pixels) != size or about.datatype != tensor_pb2.DATA_TYPE_UINT8 or tuple(about.shape) != shape:
            return None
    arrays = [np.frombuffer(pixels, np.uint8) for pixels in data]
    starts = [_address(array) for array in arrays]
    owners = [memoryview(pixels).obj for pixels in data]
    if any(it is not owners[0] for it in owners) or any(b - a != size for a, b in itertools.pairwise(starts)):
        return None
    whole = np.frombuffer(memoryview(owners[0]), np.uint8)
    offset = starts[0] - _address(whole)
    return whole[offset : offset + len(data) * size].reshape(len(data), *shape)


def _address(array: npt.NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])


def _read_image(image: spec_pb2.Image, data: Data, into: Pixels, max_pixels: int) -> None:
    """One image, as RGB in 0…255 of the size of `into`."""
    match image.WhichOneof("source"):
        case "encoded":
            _decode(data, into, max_pixels)
        case "pixels":
            into[:] = _resize_pixels(_pixels(image, data, max_pixels), *into.shape[:2])
        case _:
            raise ImageUnreadableError("the image has neither encoded bytes nor pixels")


def _decode(data: Data, into: Pixels, max_pixels: int) -> None:
    """The file's first frame, upright, 8-bit RGB."""
    if _decoded_in_place(bytes(data), into, max_pixels):
        return
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.width, image.height, max_pixels)
            image.load()
            into[:] = np.asarray(_resized(_rgb(_upright(image)), *into.shape[:2]))
    except UnidentifiedImageError as error:
        raise ImageUnreadableError(f"the bytes are no image of the formats {', '.join(FORMATS)}") from error
    except ImageUnreadableError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them trip over
        raise ImageUnreadableError(f"the image file is damaged or truncated: {error}") from error


def _decoded_in_place(data: bytes, into: Pixels, max_pixels: int) -> bool:
    """Decodes a colour JPEG that is as the model wants it by the same libjpeg-turbo, without Pillow's copies.

    False for any other image, one that may not be upright and one that libjpeg-turbo warns of: they are for Pillow.
    """
    if into.dtype != np.uint8 or _may_be_turned(data):
        return False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (height, width) != into.shape[:2] or colours not in {"YCbCr", "RGB"}:
            return False
        _check_size(width, height, max_pixels)
        simplejpeg.decode_jpeg(data, buffer=into)
    except ImageUnreadableError:
        raise
    except ValueError:
        return False
    return True


def _may_be_turned(data: bytes) -> bool:
    """True for what has an APP1 segment before its first scan, or is no row of segments."""
    at = 2
    while data[at : at + 1] == b"\xff" and len(data) >= at + 4:
        if (marker := data[at + 1]) in (_APP1, _SCAN):
            return marker == _APP1
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return True


def _upright(image: Image.Image) -> Image.Image:
    with contextlib.suppress(
        struct.error, SyntaxError, ValueError, TypeError, KeyError
    ):  # unreadable EXIF asks nothing
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips instead of scaling
        grey = np.asarray(image).astype(np.uint32) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        over_white = Image.new("RGBA", image.size, "white")
        over_white.alpha_composite(image.convert("RGBA"))
        return over_white.convert("RGB")
    return image.convert("RGB")


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _pixels(image: spec_pb2.Image, data: Data, max_pixels: int) -> Pixels:
    """The tensor as it was sent, checked."""
    try:
        array = codec.decode(image.pixels, data)
    except codec.CodecError as error:
        raise ImageUnreadableError(f"the pixel tensor is malformed: {error}") from error
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageUnreadableError(f"pixels must have the shape (height, width, 3), not {array.shape}")
    _check_size(array.shape[1], array.shape[0], max_pixels)
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    if array.dtype == np.float32:
        pixels = array.view(np.float32)
        low, high = float(pixels.min()), float(pixels.max())  # NaN anywhere makes both NaN, which fails the comparison
        if not (low >= 0.0 and high <= 255.0):
            raise ImageUnreadableError(f"float pixels must be finite and within 0…255, found {low:g}…{high:g}")
        return pixels
    raise ImageUnreadableError(f"pixels must be uint8 or float32, not {array.dtype}")


def _resize_pixels(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(_resized(Image.fromarray(pixels), height, width))
    planes = [_resized(Image.fromarray(np.ascontiguousarray(pixels[..., c])), height, width) for c in range(3)]
    return np.stack([np.asarray(plane, np.float32) for plane in planes], axis=-1)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageUnreadableError(f"the image is empty: {width}×{height}")
    if width * height > max_pixels:
        raise ImageUnreadableError(
            f"the image has {width}×{height} = {width * height} pixels, {max_pixels} are allowed"
        )
