"""Validates images by their headers and tensors, without decoding them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import simplejpeg
from PIL.Image import DecompressionBombError

from convlens.jobs.payloads.store import Data
from convlens.server.settings import ServerSettings
from convlens.server.status import invalid_field
from convlens.v1 import spec_pb2, tensor_pb2, tensors, value_ranges
from convlens.v1.image_formats import (
    LARGE_PIXELS,
    PictureError,
    check_scans,
    decoding_pixels,
    needs_own_process,
    open_picture,
)
from convlens.v1.pictures import check_mode


def count_pixels(images: Sequence[spec_pb2.Image], contents: Sequence[Data], settings: ServerSettings) -> int:
    """Check the images of a job; return their pixels, weighted by decoding time.

    They are at least LARGE_PIXELS where an image is slow enough to be decoded apart.
    """
    pairs = list(zip(images, contents, strict=True))
    pixels = sum(
        _check_image(image, content, f"spec.images[{place}]", settings) for place, (image, content) in enumerate(pairs)
    )
    if pixels > settings.max_job_pixels:
        raise invalid_field(
            "spec.images",
            f"the images take as long to decode as {pixels} pixels; allowed: {settings.max_job_pixels}. Send fewer a "
            "job, or shrink them",
        )
    has_slow = any(image.HasField("encoded") and needs_own_process(content) for image, content in pairs)
    return max(pixels, LARGE_PIXELS) if has_slow else pixels


def _check_image(image: spec_pb2.Image, data: Data, field: str, settings: ServerSettings) -> int:
    """Return the pixels of an image, weighted by decoding time.

    Reads headers alone; damage inside a file is found by the worker, which decodes it.
    """
    if image.value_range not in spec_pb2.ValueRange.values():
        allowed = ", ".join(spec_pb2.ValueRange.keys())
        raise invalid_field(f"{field}.value_range", f"is {image.value_range}; allowed: {allowed}")
    is_float = image.pixels.datatype == tensor_pb2.DATA_TYPE_FP32
    if not is_float and image.value_range not in {spec_pb2.VALUE_RANGE_UNSPECIFIED, spec_pb2.VALUE_RANGE_0_255}:
        name = spec_pb2.ValueRange.Name(image.value_range)
        raise invalid_field(
            f"{field}.value_range", f"is {name}, which is for FP32 pixels; files and UINT8 are in 0…255"
        )
    match image.WhichOneof("source"):
        case "encoded":
            width, height = _encoded_size(data, f"{field}.encoded")
        case "pixels":
            height, width = _pixels_size(image, data, f"{field}.pixels")
        case _:
            raise invalid_field(field, "is empty; allowed: encoded, pixels")
    if width * height > settings.max_image_pixels:
        raise invalid_field(field, f"has {width}×{height} pixels; allowed: {settings.max_image_pixels} in all")
    return decoding_pixels(data, width, height) if image.HasField("encoded") else width * height


def _encoded_size(data: Data, field: str) -> tuple[int, int]:
    """Return width and height from the file's header."""
    try:
        check_scans(data)
    except PictureError as error:
        raise invalid_field(field, str(error)) from None
    with contextlib.suppress(ValueError):  # Pillow reads what libjpeg-turbo cannot
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return width, height
    try:
        with open_picture(data) as header:
            check_mode(header)
            return header.size
    except PictureError as error:
        raise invalid_field(field, str(error)) from None
    except DecompressionBombError:
        raise invalid_field(field, f"too many pixels ({len(data)} bytes)") from None
    except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them trip over
        raise invalid_field(field, f"no image that can be read ({len(data)} bytes): {error}") from error


def _pixels_size(image: spec_pb2.Image, data: Data, field: str) -> tuple[int, int]:
    """Check a tensor; return height and width."""
    tensor = image.pixels
    if tensor.datatype not in {tensor_pb2.DATA_TYPE_UINT8, tensor_pb2.DATA_TYPE_FP32}:
        name = (
            tensor_pb2.DataType.Name(tensor.datatype) if tensor.datatype in tensor_pb2.DataType.values() else "unknown"
        )
        raise invalid_field(f"{field}.datatype", f"is {name}; allowed: DATA_TYPE_UINT8, DATA_TYPE_FP32")
    shape = tuple(tensor.shape)
    if len(shape) != 3 or shape[-1] not in {1, 3} or min(shape) < 1:
        raise invalid_field(f"{field}.shape", f"is {list(shape)}; allowed: [height, width, 3], [height, width, 1]")
    try:
        pixels = tensors.decode(tensor, data)
    except tensors.TensorError as error:
        raise invalid_field(f"{field}.data", str(error)) from None
    if pixels.dtype == np.float32:
        floats = pixels.view(np.float32)
        if why := value_ranges.explain_refusal(float(floats.min()), float(floats.max()), image.value_range):
            raise invalid_field(f"{field}.data", why)
    return int(shape[0]), int(shape[1])
