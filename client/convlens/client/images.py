"""Images as callers have them, as the wire's messages: files' bytes travel as they are, pixels as tensors."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from convlens.client.errors import InvalidArgument
from convlens.v1 import codec, spec_pb2

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

ImageLike = Any
"""A path, a file's bytes, a Pillow image, or a uint8 or float32 array (H,W,3) of RGB in 0…255."""
Images = Any
"""One ImageLike, a sequence of them, or an array (N,H,W,3)."""
_ALLOWED: Final = "a path, bytes, a Pillow image, or a uint8 or float32 array (H,W,3) or (N,H,W,3) of RGB in 0…255"


def pack(images: Images) -> list[spec_pb2.Image]:
    """Every image as a message, in order. InvalidArgument for what is none; OSError for a file that cannot be read."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return [_pixels(image) for image in images]
    if isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview):
        return [_pack_one(image) for image in images]
    return [_pack_one(images)]


def _pack_one(image: ImageLike) -> spec_pb2.Image:
    if isinstance(image, bytes | bytearray | memoryview):
        return spec_pb2.Image(encoded=bytes(image))
    if isinstance(image, str | os.PathLike):
        return spec_pb2.Image(encoded=Path(image).read_bytes())
    if isinstance(image, np.ndarray):
        return _pixels(image)
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        from PIL import ImageOps

        return _pixels(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    raise InvalidArgument(f"{type(image).__name__} is no image; allowed: {_ALLOWED}", field="images")


def _pixels(array: npt.NDArray[np.generic]) -> spec_pb2.Image:
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
        raise InvalidArgument(f"{array.dtype} array {array.shape} is no image; allowed: {_ALLOWED}", field="images")
    return spec_pb2.Image(pixels=codec.encode(array))


def picture(image: spec_pb2.Image) -> PillowImage:
    """The photo itself, upright RGB, for figures. Needs Pillow."""
    from PIL import Image, ImageOps

    if image.WhichOneof("source") == "encoded":
        with Image.open(io.BytesIO(image.encoded)) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    return Image.fromarray(np.clip(codec.decode(image.pixels), 0, 255).astype(np.uint8))
