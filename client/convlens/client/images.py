"""Images as callers have them, as the wire has them: files' bytes travel as they are, pixels as tensors."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from convlens.client.errors import InvalidArgument
from convlens.v1 import codec, framing, spec_pb2, tensor_pb2, visualization_pb2

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

ImageLike = Any
"""A path, a file's bytes, a Pillow image, or a uint8 or float32 array (H,W,3) of RGB in 0…255."""
Images = Any
"""One ImageLike, a sequence of them, or an array (N,H,W,3)."""
_ALLOWED: Final = "a path, bytes, a Pillow image, or a uint8 or float32 array (H,W,3) or (N,H,W,3) of RGB in 0…255"


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image as it is sent: a description, and bytes that are copied once, into what goes out."""

    about: tensor_pb2.Tensor | None
    """Datatype and shape of pixels; None for a file."""
    data: bytes | memoryview

    @property
    def encoded(self) -> bytes:
        """The file; empty for pixels."""
        return bytes(self.data) if self.about is None else b""

    @property
    def pixels(self) -> tensor_pb2.Tensor:
        """The tensor; empty for a file."""
        tensor = tensor_pb2.Tensor(data=bytes(self.data) if self.about else b"")
        tensor.MergeFrom(self.about or tensor)
        return tensor

    @property
    def outline(self) -> spec_pb2.Image:
        """The message without its bytes."""
        return spec_pb2.Image(encoded=b"") if self.about is None else spec_pb2.Image(pixels=self.about)

    @property
    def pieces(self) -> list[framing.Data]:
        """An Image message, serialized."""
        if self.about is None:
            return framing.field(_ENCODED, self.data)
        return framing.field(_PIXELS, self.about.SerializeToString(), *framing.field(_DATA, self.data))

    def __reduce__(self) -> tuple[type[SentImage], tuple[tensor_pb2.Tensor | None, bytes]]:
        return SentImage, (self.about, bytes(self.data))


_ENCODED, _PIXELS = (spec_pb2.Image.DESCRIPTOR.fields_by_name[name].number for name in ("encoded", "pixels"))
_DATA: Final = tensor_pb2.Tensor.DESCRIPTOR.fields_by_name["data"].number
_IMAGES: Final = spec_pb2.JobSpec.DESCRIPTOR.fields_by_name["images"].number
_SPEC: Final = visualization_pb2.VisualizeRequest.DESCRIPTOR.fields_by_name["spec"].number


class Outgoing:
    """The images of a request, put one behind another into what is sent: each is copied once."""

    def __init__(self, images: Iterable[SentImage] = ()) -> None:
        self._file = io.BytesIO()
        self._file.write(framing.tag(_SPEC) + framing.patched(0))
        self._begin = self._file.tell()
        self._places: list[tuple[tensor_pb2.Tensor | None, int, int]] = []
        self.size = 0
        """Bytes of the images."""
        for image in images:
            self.add(image)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, image: SentImage) -> None:
        """One image more; what it is made of may change afterwards."""
        self._file.writelines(framing.field(_IMAGES, *image.pieces))
        end = self._file.tell()
        self._places.append((image.about, end - len(image.data), end))
        self.size += len(image.data)

    def finished(self, spec: bytes, *rest: framing.Data) -> bytes:
        """The request, with the other fields of its JobSpec and those behind that. Nothing can be added to it."""
        self._file.write(spec)
        size = self._file.tell() - self._begin
        self._file.writelines(rest)
        self._file.seek(self._begin - len(framing.patched(0)))
        self._file.write(framing.patched(size))
        return self._file.getvalue()

    @property
    def images(self) -> list[SentImage]:
        """Views of the images where they are."""
        whole = memoryview(self._file.getvalue())
        return [SentImage(about, whole[start:end]) for about, start, end in self._places]


def pack(images: Images) -> list[SentImage]:
    """Every image, in order. InvalidArgument for what is none; OSError for a file that cannot be read."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return [_pixels(image) for image in images]
    if isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview):
        return [_pack_one(image) for image in images]
    return [_pack_one(images)]


def _pack_one(image: ImageLike) -> SentImage:
    if isinstance(image, SentImage):
        return image
    if isinstance(image, bytes | bytearray | memoryview):
        return SentImage(None, bytes(image))
    if isinstance(image, str | os.PathLike):
        return SentImage(None, Path(image).read_bytes())
    if isinstance(image, np.ndarray):
        return _pixels(image)
    if hasattr(image, "convert") and hasattr(image, "getexif"):
        from PIL import ImageOps

        return _pixels(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    raise InvalidArgument(f"{type(image).__name__} is no image; allowed: {_ALLOWED}", field="images")


def _pixels(array: npt.NDArray[np.generic]) -> SentImage:
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype not in (np.dtype(np.uint8), np.dtype("<f4")):
        raise InvalidArgument(f"{array.dtype} array {array.shape} is no image; allowed: {_ALLOWED}", field="images")
    about = tensor_pb2.Tensor(datatype=codec.datatype_of(array.dtype), shape=array.shape)
    return SentImage(about, codec.buffer_of(array))


def picture(image: SentImage) -> PillowImage:
    """The photo itself, upright RGB, for figures. Needs Pillow."""
    from PIL import Image, ImageOps

    if image.about is None:
        with Image.open(io.BytesIO(image.data)) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    return Image.fromarray(np.clip(codec.decode(image.about, image.data), 0, 255).astype(np.uint8))
