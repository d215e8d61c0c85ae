"""Images as they were sent to arrays of a model's input size.

Knows Pillow, simplejpeg and the wire's Image message; knows neither jobs nor networks.

What is done, in this order, and nothing else:
 1. The format is told by the file's content: convlens.v1.image_formats has those that are read. Other formats Pillow
    could read are refused before their parsers see a byte.
 2. Width × height is held against the limit before a pixel is decoded.
 3. The pixels are decoded in full; a truncated or damaged file is an error and never a half-grey image. JPEG's draft
    mode (decoding at a fraction of the size) is not used: it saves time on large photos only, and moves pixels by
    several levels, which shows in a gradient map.
 4. The picture becomes upright 8-bit RGB: convlens.v1.pictures says how. Pixels that were sent as float32 are brought
    to 0…255 as their value range says, and are uint8 where all are whole numbers then; grey ones are repeated.
 5. For a model of grey images RGB becomes luma, Pillow's mode L (ITU-R 601); grey is as it was.
 6. The image is resized to the model's input with Pillow's BILINEAR (antialiased when it shrinks), aspect ratio not
    kept: to the bit what keras.utils.load_img(..., target_size, interpolation="bilinear") gives. An image that has the
    size already is left as it is.

A JPEG that is as the model wants it is decoded by simplejpeg straight into its place; the pixels are those of Pillow.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from convlens.v1 import spec_pb2, tensor_pb2, tensors, value_ranges
from convlens.v1.image_formats import (
    SLOW_PIXELS,
    ManyReadsError,
    PictureError,
    check_scans,
    needs_own_process,
    open_picture,
)
from convlens.v1.pictures import check_mode, to_rgb

Data = bytes | memoryview
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Decode = Callable[[spec_pb2.Image, Data, Pixels], None]
"""Reads an image file into an array, as read_image() does."""

THREADS: Final = 8
"""At most; each may hold an image of the largest size."""
PART_BYTES: Final = 64 << 10
"""Bytes of files that are worth a thread."""
_APP1, _SCAN = 0xE1, 0xDA
"""Markers of a JPEG's segments: EXIF and XMP, which may tell that an image is not upright; the first scan."""
_SEGMENTS: Final = 1000
"""Of a JPEG that are looked at here, in Python."""

_OF_BYTES: Final = {spec_pb2.VALUE_RANGE_UNSPECIFIED, spec_pb2.VALUE_RANGE_0_255}
"""What may be stated of files and uint8 pixels."""
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R 601, as Pillow's mode L."""
_JPEG: Final = {3: ("RGB", {"YCbCr", "RGB"}), 1: ("GRAY", {"Gray"})}
"""By a model's channels: what simplejpeg decodes to, and of which colour spaces, without a conversion of its own."""

_ONE_AVIF: Final = threading.Lock()
"""An AVIF's frames may be larger than its header says, up to libavif's own 16384×16384: one at a time in memory."""

# The limit is ours, a setting, and stricter; Pillow's own would warn from a thread that nobody reads.
Image.MAX_IMAGE_PIXELS = None


class ImageUnreadableError(ValueError):
    """An image that cannot be had from what was sent; the message says why, for people."""


class TakesLongError(Exception):
    """An image file that is to be decoded in a process apart."""


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
        self,
        images: Sequence[spec_pb2.Image],
        data: Sequence[Data],
        height: int,
        width: int,
        first: int = 0,
        channels: int = 3,
        decode: Decode | None = None,
        *,
        most_here: int = SLOW_PIXELS,
    ) -> Pixels:
        """Images described by `images`, of the bytes `data`, as one array (N, height, width, channels) in 0…255.

        RGB, or grey for one channel. uint8, or float32 when any was sent as float32. `decode` is what reads files of
        more than `most_here` pixels, and others that would hold up this process, one after another.

        Raises UnreadableAt, which carries the index of the first image that cannot be read, counted from `first`.
        """
        shape = (height, width, channels)
        if height * width <= self._max_pixels and (lying := _as_they_lie(images, data, shape)) is not None:
            return lying
        floats = any(image.pixels.datatype == tensor_pb2.DATA_TYPE_FP32 for image in images)
        pixels: Any = np.empty((len(images), *shape), np.float32 if floats else np.uint8)

        def read(row: int, how: Decode) -> None:
            try:
                how(images[row], data[row], pixels[row])
            except ImageUnreadableError as error:
                raise UnreadableAtError(first + row, str(error)) from error

        def part(rows: range) -> list[int]:
            """Reads these, and returns those that are to be read apart."""
            left = []
            for row in rows:
                try:
                    read(row, here)
                except TakesLongError:
                    left.append(row)
            return left

        here = functools.partial(read_image, max_pixels=self._max_pixels, most_here=most_here if decode else None)
        count = len(images)
        files = sum(len(file) for image, file in zip(images, data, strict=True) if not image.HasField("pixels"))
        parts = max(1, min(self._most, count, files // PART_BYTES))
        own, *others = (range(count * i // parts, count * (i + 1) // parts) for i in range(parts))
        helped = [self._threads.submit(part, rows) for rows in others]
        left = part(own)
        for helper in helped:
            left += helper.result()
        if decode:
            for row in left:
                read(row, decode)
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
        if image.value_range not in _OF_BYTES:
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


def read_image(image: spec_pb2.Image, data: Data, into: Pixels, max_pixels: int, most_here: int | None = None) -> None:
    """One image, in 0…255, of the size and the channels of `into`.

    With `most_here`, TakesLongError for a file of more pixels, and for others that would hold up other threads.
    """
    match image.WhichOneof("source"):
        case "encoded":
            if image.value_range not in _OF_BYTES:
                raise ImageUnreadableError("value_range is for float pixels; image files are in 0…255")
            if most_here is not None and needs_own_process(data):
                raise TakesLongError
            _decode(data, into, max_pixels, most_here)
        case "pixels":
            height, width, channels = into.shape
            into[:] = _resize_pixels(_with_channels(_pixels(image, data, max_pixels), channels), height, width)
        case _:
            raise ImageUnreadableError("the image has neither encoded bytes nor pixels")


def _decode(data: Data, into: Pixels, max_pixels: int, most_here: int | None) -> None:
    """The file's first frame, upright."""
    height, width, channels = into.shape
    try:
        check_scans(data)
        if _decoded_in_place(bytes(data), into, max_pixels):
            return
        with open_picture(data, len(data) if most_here is None else 0) as image:
            _check_size(image.width, image.height, max_pixels)
            check_mode(image)
            if most_here is not None and image.width * image.height > most_here:
                raise TakesLongError  # noqa: TRY301 - what is open is to be closed
            with _ONE_AVIF if image.format == "AVIF" else contextlib.nullcontext():
                picture = to_rgb(image)
        if channels == 1:
            picture = picture.convert("L")
        into[:] = np.asarray(_resized(picture, height, width)).reshape(height, width, channels)
    except (ImageUnreadableError, TakesLongError):
        raise
    except PictureError as error:
        if most_here is not None and isinstance(error, ManyReadsError):
            raise TakesLongError from None
        raise ImageUnreadableError(str(error)) from error
    except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them trip over
        raise ImageUnreadableError(f"the image file is damaged or truncated: {error}") from error


def _decoded_in_place(data: bytes, into: Pixels, max_pixels: int) -> bool:
    """Decodes a JPEG that is as the model wants it by the same libjpeg-turbo, without Pillow's copies.

    False for any other image, one that may not be upright and one that libjpeg-turbo warns of: they are for Pillow.
    """
    if into.dtype != np.uint8 or _may_be_turned(data):
        return False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        wanted, as_they_are = _JPEG[into.shape[2]]
        if (height, width) != into.shape[:2] or colours not in as_they_are:
            return False
        _check_size(width, height, max_pixels)
        simplejpeg.decode_jpeg(data, colorspace=wanted, buffer=into)
    except ImageUnreadableError:
        raise
    except ValueError:
        return False
    return True


def _may_be_turned(data: bytes) -> bool:
    """True for what has an APP1 segment before its first scan, is no row of segments, or is a very long one."""
    at = 2
    for _ in range(_SEGMENTS):
        if data[at : at + 1] != b"\xff" or len(data) < at + 4:
            break
        if (marker := data[at + 1]) in (_APP1, _SCAN):
            return marker == _APP1
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return True


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _pixels(image: spec_pb2.Image, data: Data, max_pixels: int) -> Pixels:
    """The tensor as it was sent, checked, in 0…255; (height, width, 3) or (height, width, 1)."""
    try:
        array = tensors.decode(image.pixels, data)
    except tensors.TensorError as error:
        raise ImageUnreadableError(f"the pixel tensor is malformed: {error}") from error
    if array.ndim != 3 or array.shape[2] not in {1, 3}:
        raise ImageUnreadableError(
            f"pixels must have the shape (height, width, 3) or (height, width, 1), not {array.shape}"
        )
    _check_size(array.shape[1], array.shape[0], max_pixels)
    if array.dtype == np.uint8:
        if image.value_range not in _OF_BYTES:
            raise ImageUnreadableError("value_range is for float pixels; uint8 pixels are in 0…255")
        return array.view(np.uint8)
    if array.dtype == np.float32:
        pixels = array.view(np.float32)
        if why := value_ranges.explain_refusal(float(pixels.min()), float(pixels.max()), image.value_range):
            raise ImageUnreadableError(why)
        return value_ranges.to_255(pixels, image.value_range)
    raise ImageUnreadableError(f"pixels must be uint8 or float32, not {array.dtype}")


def _with_channels(pixels: Pixels, channels: int) -> Pixels:
    """RGB as luma where one channel is wanted. Grey is left as it is: it is repeated where it is written."""
    if pixels.shape[2] <= channels:
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return cast("Pixels", pixels @ _LUMA)[..., None]


def _resize_pixels(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(_resized(Image.fromarray(pixels), height, width))
    planes = [np.ascontiguousarray(pixels[..., channel]) for channel in range(pixels.shape[2])]
    return np.stack([np.asarray(_resized(Image.fromarray(plane), height, width)) for plane in planes], axis=-1)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageUnreadableError(f"the image is empty: {width}×{height}")
    if width * height > max_pixels:
        raise ImageUnreadableError(
            f"the image has {width}×{height} = {width * height} pixels, {max_pixels} are allowed"
        )
