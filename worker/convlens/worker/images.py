"""Decode images, as files or as pixels, to arrays of a model's input size.

The steps, in this order:
 1. The format is recognized by the file's content; convlens.v1.image_formats lists those that are read. Other formats
    are refused before Pillow's parsers see a byte.
 2. Width × height is checked against the limit before a pixel is decoded.
 3. The pixels are decoded in full; a truncated or damaged file is an error and never a half-grey image. JPEG's draft
    mode (decoding at a fraction of the size) is not used: it saves time on large photos only, and changes pixels by
    several levels, which shows in a gradient map.
 4. The image becomes upright 8-bit RGB, by convlens.v1.pictures. Pixels sent as float32 are scaled to 0…255 by their
    value range, and become uint8 where all are whole numbers then; grey is repeated to three channels.
 5. For a model of grey images RGB becomes luma, Pillow's mode L (ITU-R BT.601).
 6. The image is resized to the model's input with Pillow's BILINEAR (antialiased when it shrinks), without keeping the
    aspect ratio: bit for bit what keras.utils.load_img(..., target_size, interpolation="bilinear") gives.

A JPEG of the model's size and colour space is decoded by simplejpeg straight into the batch, to the same pixels; the
server has bounded its scans.
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
    needs_own_process,
    open_picture,
)
from convlens.v1.pictures import check_mode, to_rgb
from convlens.worker.engine.preprocess import LUMA

Data = bytes | memoryview
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Decode = Callable[[spec_pb2.Image, Data, Pixels], None]
"""Decodes an image file into an array, as read_image() does."""

THREADS: Final = 8
"""The most decoding threads; each may hold an image of the largest size."""
BYTES_PER_THREAD: Final = 64 << 10
"""Bytes of image files that justify another thread."""
_APP1, _SCAN = 0xE1, 0xDA
"""Markers of JPEG segments: EXIF and XMP, which may rotate the image; start of scan."""
_MAX_SEGMENTS: Final = 1000
"""Segments of a JPEG that are scanned in Python."""

_BYTE_RANGES: Final = {spec_pb2.VALUE_RANGE_UNSPECIFIED, spec_pb2.VALUE_RANGE_0_255}
"""The value ranges that files and uint8 pixels may have."""
_JPEG: Final = {3: ("RGB", {"YCbCr", "RGB"}), 1: ("GRAY", {"Gray"})}
"""By a model's channels: the colour space to decode to, and the ones of files that simplejpeg need not convert."""

_ONE_AVIF: Final = threading.Lock()
"""Held while an AVIF is decoded: its frames may be larger than its header says, up to libavif's 16384×16384."""

# Our own limit is a setting, and stricter; Pillow's would warn in a thread whose warnings nobody sees.
Image.MAX_IMAGE_PIXELS = None


class ImageUnreadableError(ValueError):
    """An image that cannot be decoded; the message is for the caller."""


class SlowImageError(Exception):
    """An image file to decode in a process of its own."""


class UnreadableAtError(ImageUnreadableError):
    """An image of a batch that cannot be decoded, with its index."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


class ImageDecoder:
    """Decodes batches of images of up to `max_pixels` pixels each, in several threads where the files are large.

    Decoders release the interpreter's lock.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._max_threads = min(THREADS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(self._max_threads, thread_name_prefix="decode")

    def read(
        self,
        images: Sequence[spec_pb2.Image],
        data: Sequence[Data],
        height: int,
        width: int,
        first_index: int = 0,
        channels: int = 3,
        decode: Decode | None = None,
        *,
        max_pixels_here: int = SLOW_PIXELS,
    ) -> Pixels:
        """Decode `images` with the bytes `data` to one array (N,height,width,channels) in 0…255.

        RGB, or grey for one channel; uint8, or float32 when any image was sent as float32. `decode` reads files of more
        than `max_pixels_here` pixels, and others that would block this process's threads, one after another.

        Raises UnreadableAtError with the index of the image that cannot be decoded, counted from `first_index`.
        """
        shape = (height, width, channels)
        if height * width <= self._max_pixels and (view := _view_of_one_buffer(images, data, shape)) is not None:
            return view
        floats = any(image.pixels.datatype == tensor_pb2.DATA_TYPE_FP32 for image in images)
        pixels: Any = np.empty((len(images), *shape), np.float32 if floats else np.uint8)

        def decode_row(row: int, decoder: Decode) -> None:
            try:
                decoder(images[row], data[row], pixels[row])
            except ImageUnreadableError as error:
                raise UnreadableAtError(first_index + row, str(error)) from error

        def decode_here(rows: range) -> list[int]:
            """Decode these rows; return those that are left to `decode`."""
            slow = []
            for row in rows:
                try:
                    decode_row(row, decoder_here)
                except SlowImageError:
                    slow.append(row)
            return slow

        decoder_here = functools.partial(
            read_image, max_pixels=self._max_pixels, max_pixels_here=max_pixels_here if decode else None
        )
        count = len(images)
        file_bytes = sum(len(file) for image, file in zip(images, data, strict=True) if not image.HasField("pixels"))
        parts = max(1, min(self._max_threads, count, file_bytes // BYTES_PER_THREAD))
        own, *others = (range(count * i // parts, count * (i + 1) // parts) for i in range(parts))
        futures = [self._threads.submit(decode_here, rows) for rows in others]
        slow = decode_here(own)
        for future in futures:
            slow += future.result()
        if decode:
            for row in slow:
                decode_row(row, decode)
        return cast("Pixels", pixels)


def _view_of_one_buffer(
    images: Sequence[spec_pb2.Image], data: Sequence[Data], shape: tuple[int, int, int]
) -> npt.NDArray[np.uint8] | None:
    """Return a view of uint8 pixels of the model's size that follow one another in one buffer, as a request's do.

    None for any others, which must be copied.
    """
    size = math.prod(shape)
    for image, pixels in zip(images, data, strict=True):
        tensor = image.pixels
        if len(pixels) != size or tensor.datatype != tensor_pb2.DATA_TYPE_UINT8 or tuple(tensor.shape) != shape:
            return None
        if image.value_range not in _BYTE_RANGES:
            return None
    arrays = [np.frombuffer(pixels, np.uint8) for pixels in data]
    starts = [_address(array) for array in arrays]
    owners = [memoryview(pixels).obj for pixels in data]
    if any(owner is not owners[0] for owner in owners) or any(b - a != size for a, b in itertools.pairwise(starts)):
        return None
    whole = np.frombuffer(memoryview(owners[0]), np.uint8)
    offset = starts[0] - _address(whole)
    return whole[offset : offset + len(data) * size].reshape(len(data), *shape)


def _address(array: npt.NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])


def read_image(
    image: spec_pb2.Image, data: Data, into: Pixels, max_pixels: int, max_pixels_here: int | None = None
) -> None:
    """Decode one image into `into`, (H,W,C), in 0…255.

    Raises ImageUnreadableError; with `max_pixels_here` also SlowImageError, for a file of more pixels, and for one
    whose decoder would block other threads.
    """
    match image.WhichOneof("source"):
        case "encoded":
            if image.value_range not in _BYTE_RANGES:
                raise ImageUnreadableError("value_range is for float pixels; image files are in 0…255")
            if max_pixels_here is not None and needs_own_process(data):
                raise SlowImageError
            _decode(data, into, max_pixels, max_pixels_here)
        case "pixels":
            height, width, channels = into.shape
            into[:] = _resize_pixels(
                _convert_channels(_decode_pixels(image, data, max_pixels), channels), height, width
            )
        case _:
            raise ImageUnreadableError("the image has neither encoded bytes nor pixels")


def _decode(data: Data, into: Pixels, max_pixels: int, max_pixels_here: int | None) -> None:
    """Decode the file's first frame, upright."""
    height, width, channels = into.shape
    try:
        if _decode_in_place(bytes(data), into, max_pixels):
            return
        with open_picture(data, len(data) if max_pixels_here is None else 0) as image:
            _check_size(image.width, image.height, max_pixels)
            check_mode(image)
            if max_pixels_here is not None and image.width * image.height > max_pixels_here:
                raise SlowImageError  # noqa: TRY301 - the `with` closes the file
            with _ONE_AVIF if image.format == "AVIF" else contextlib.nullcontext():
                picture = to_rgb(image)
        if channels == 1:
            picture = picture.convert("L")
        into[:] = np.asarray(_resize(picture, height, width)).reshape(height, width, channels)
    except (ImageUnreadableError, SlowImageError):
        raise
    except PictureError as error:
        if max_pixels_here is not None and isinstance(error, ManyReadsError):
            raise SlowImageError from None
        raise ImageUnreadableError(str(error)) from error
    except Exception as error:  # Pillow's parsers raise anything on damaged files
        raise ImageUnreadableError(f"the image file is damaged or truncated: {error}") from error


def _decode_in_place(data: bytes, into: Pixels, max_pixels: int) -> bool:
    """Decode a JPEG of the model's size and colour space by libjpeg-turbo, which Pillow uses too, without its copies.

    Return False for any other image, one that may be rotated, and one that libjpeg-turbo warns about.
    """
    if into.dtype != np.uint8 or _may_be_rotated(data):
        return False
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        decoded_colorspace, unconverted = _JPEG[into.shape[2]]
        if (height, width) != into.shape[:2] or colorspace not in unconverted:
            return False
        _check_size(width, height, max_pixels)
        simplejpeg.decode_jpeg(data, colorspace=decoded_colorspace, buffer=into)
    except ImageUnreadableError:
        raise
    except ValueError:
        return False
    return True


def _may_be_rotated(data: bytes) -> bool:
    """Return True for an APP1 segment before the first scan, and for segments that are malformed or very many."""
    offset = 2
    for _ in range(_MAX_SEGMENTS):
        if data[offset : offset + 1] != b"\xff" or len(data) < offset + 4:
            break
        if (marker := data[offset + 1]) in (_APP1, _SCAN):
            return marker == _APP1
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4])
    return True


def _resize(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _decode_pixels(image: spec_pb2.Image, data: Data, max_pixels: int) -> Pixels:
    """Check a tensor of pixels and scale it to 0…255; (height,width,3) or (height,width,1)."""
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
        if image.value_range not in _BYTE_RANGES:
            raise ImageUnreadableError("value_range is for float pixels; uint8 pixels are in 0…255")
        return array.view(np.uint8)
    if array.dtype == np.float32:
        pixels = array.view(np.float32)
        if reason := value_ranges.explain_refusal(float(pixels.min()), float(pixels.max()), image.value_range):
            raise ImageUnreadableError(reason)
        return value_ranges.to_255(pixels, image.value_range)
    raise ImageUnreadableError(f"pixels must be uint8 or float32, not {array.dtype}")


def _convert_channels(pixels: Pixels, channels: int) -> Pixels:
    """Convert RGB to luma for a model of one channel. Grey is repeated by broadcasting when it is stored."""
    if pixels.shape[2] <= channels:
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return (pixels @ np.array(LUMA, np.float32))[..., None]


def _resize_pixels(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(_resize(Image.fromarray(pixels), height, width))
    planes = [np.ascontiguousarray(pixels[..., channel]) for channel in range(pixels.shape[2])]
    return np.stack([np.asarray(_resize(Image.fromarray(plane), height, width)) for plane in planes], axis=-1)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageUnreadableError(f"the image is empty: {width}×{height}")
    if width * height > max_pixels:
        raise ImageUnreadableError(
            f"the image has {width}×{height} = {width * height} pixels, {max_pixels} are allowed"
        )
