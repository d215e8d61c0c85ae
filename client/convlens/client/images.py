"""Images as callers have them, as the wire has them: files' bytes travel as they are, pixels as tensors.

docs/images.md lists every way to give an image; files.py and arrays.py know the ways, convlens.v1 what pictures mean.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeGuard

import numpy as np

from convlens.client.arrays import ValueRange, as_array, misplaced_range, range_of_batch, to_pixels, wire_range
from convlens.client.errors import InvalidArgument
from convlens.client.files import Readable, read_file, read_path, read_resource
from convlens.v1 import framing, spec_pb2, tensor_pb2, tensors, value_ranges, visualization_pb2
from convlens.v1.file_signatures import HEAD_BYTES, explain_unsupported
from convlens.v1.image_formats import PictureError, open_picture
from convlens.v1.pictures import to_rgb
from convlens.v1.tensors import Array

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image as PillowImage


class ArrayLike(Protocol):
    """A tensor of TensorFlow, PyTorch, JAX, or whatever else NumPy reads."""

    def __array__(self) -> npt.NDArray[Any]:
        """Itself as an array."""


class DLPackTensor(Protocol):
    """A tensor by the DLPack protocol, on this machine's memory."""

    def __dlpack__(self, *, stream: None = None) -> Any:
        """Itself as a capsule."""


ImageLike: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | PillowImage | npt.NDArray[Any] | ArrayLike | "
    "DLPackTensor | SentImage"
)
"""A path, a file's bytes, an open file, a Pillow image, or an array or tensor of RGB (H,W,3) or grey (H,W), (H,W,1)."""
Images: TypeAlias = "ImageLike | Iterable[ImageLike] | Outgoing"
"""One ImageLike, several, or an array (N,H,W,3) or (N,H,W,1); or what map() has packed already."""
ALLOWED: Final = (
    "a path, bytes, a Pillow image, or an open file, an array or a tensor; arrays are (H,W,3) of RGB or (H,W) of grey, "
    "batches (N,H,W,3)"
)
_NPY: Final = b"\x93NUMPY"
_NPY_HEADERS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads the header of a version."""


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image as it is sent: a description, and bytes that are copied once, into what goes out."""

    about: tensor_pb2.Tensor | None
    """Datatype and shape of pixels; None for a file."""
    data: bytes | memoryview
    value_range: spec_pb2.ValueRange.ValueType = spec_pb2.VALUE_RANGE_UNSPECIFIED
    """What float pixels span."""

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
    def pieces(self) -> list[framing.Data]:
        """An Image message, serialized; its bytes are at the end."""
        if self.about is None:
            return framing.field(_ENCODED, self.data)
        stated = [framing.number(_VALUE_RANGE, self.value_range)] if self.value_range else []
        return stated + framing.field(_PIXELS, self.about.SerializeToString(), *framing.field(_DATA, self.data))

    def __reduce__(self) -> tuple[type[SentImage], tuple[tensor_pb2.Tensor | None, bytes, int]]:
        return SentImage, (self.about, bytes(self.data), self.value_range)


_ENCODED, _PIXELS, _VALUE_RANGE = (
    spec_pb2.Image.DESCRIPTOR.fields_by_name[name].number for name in ("encoded", "pixels", "value_range")
)
_DATA: Final = tensor_pb2.Tensor.DESCRIPTOR.fields_by_name["data"].number
_IMAGES: Final = spec_pb2.JobSpec.DESCRIPTOR.fields_by_name["images"].number
_SPEC: Final = visualization_pb2.VisualizeRequest.DESCRIPTOR.fields_by_name["spec"].number


class Outgoing:
    """The images of a request, put one behind another into what is sent: each is copied once."""

    def __init__(self, images: Iterable[SentImage] = ()) -> None:
        self._file = io.BytesIO()
        self._file.write(framing.tag(_SPEC) + framing.patched(0))
        self._begin = self._file.tell()
        self._places: list[tuple[tensor_pb2.Tensor | None, spec_pb2.ValueRange.ValueType, int, int]] = []
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
        self._places.append((image.about, image.value_range, end - len(image.data), end))
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
        return [SentImage(about, whole[start:end], stated) for about, stated, start, end in self._places]


def pack(images: Images, value_range: ValueRange | None = None) -> list[SentImage]:
    """Every image, in order. InvalidArgument for what is none; OSError for a file that cannot be read.

    `value_range` says what float arrays span; see arrays.ValueRange.
    """
    stated = wire_range(value_range)
    if not _is_several(images):
        content = _content(images)
        return list(_frames(content, stated)) if _is_batch(content) else [_packed(content, stated)]
    several = list(images)
    if len(several) == 1:
        return [pack_one(several[0], value_range)]
    packed = []
    for place, image in enumerate(several):
        try:
            packed.append(pack_one(image, value_range))
        except InvalidArgument as error:
            raise InvalidArgument(f"images[{place}]: {error.message}", field=error.field) from error
    return packed


def pack_one(image: ImageLike, value_range: ValueRange | None = None) -> SentImage:
    """One image of several. Errors as of pack."""
    return _packed(_content(image), wire_range(value_range))


def one_by_one(images: Iterable[ImageLike], value_range: ValueRange | None) -> Iterable[ImageLike]:
    """The images of map(): those of an iterable, or of a batch (N,H,W,3), which is judged as a whole.

    InvalidArgument for a single image, whose rows or letters would be taken for images otherwise.
    """
    stated = wire_range(value_range)
    if _is_several(images):
        return images
    content = _content(images)
    if not _is_batch(content):
        raise InvalidArgument(f"map takes many images; give [image] for one {_kind(images)}", field="images")
    return _frames(content, stated)


def _is_several(images: Any) -> TypeGuard[Iterable[ImageLike]]:
    """True for images one after another, an array of paths among them; False for one image, a batch, or neither."""
    if isinstance(images, Mapping | AbstractSet):
        message = f"{_kind(images)} is no image; allowed: {ALLOWED}. Of several images give a list"
        raise InvalidArgument(message, field="images")
    if isinstance(images, np.ndarray) or _is_tensor(images):
        kind = getattr(getattr(images, "dtype", None), "kind", None)  # tensors of other libraries have other dtypes
        return len(getattr(images, "shape", ())) == 1 and kind in {"O", "U", "T"}
    single = isinstance(images, SentImage | str | os.PathLike | bytes | bytearray | memoryview) or _is_pillow(images)
    return isinstance(images, Iterable) and not single and not hasattr(images, "read")


def _is_batch(content: SentImage | bytes | Array) -> TypeGuard[Array]:
    return isinstance(content, np.ndarray) and content.ndim == 4


def _is_pillow(image: Any) -> bool:
    """True for Pillow's images, without importing Pillow."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


def _is_tensor(image: Any) -> bool:
    return hasattr(image, "__array__") or hasattr(image, "__dlpack__")


def _kind(image: Any) -> str:
    return type(image).__name__


def _content(image: Any) -> SentImage | bytes | Array:
    """What an image is made of: a file's bytes, or an array that is still to be judged."""
    if isinstance(image, np.ndarray | SentImage):
        return image
    if isinstance(image, str | os.PathLike):
        return _of_file(read_path(image), f"{os.fspath(image)}: ")
    if isinstance(image, memoryview) and image.ndim > 1:
        return np.asarray(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return _of_file(bytes(image))
    if _is_pillow(image):
        return _of_pillow(image)
    if hasattr(image, "read"):
        return _of_file(read_file(image))
    if hasattr(image, "read_bytes"):  # of a package's resources, or of an archive
        return _of_file(read_resource(image), f"{image}: ")
    if _is_tensor(image):
        return as_array(image)
    raise InvalidArgument(f"{_kind(image)} is no image; allowed: {ALLOWED}", field="images")


def _of_file(data: bytes, name: str = "") -> bytes | Array:
    """A file as it travels, or the array that it holds."""
    if not data:
        raise InvalidArgument(f"{name}the file is empty", field="images")
    if data.startswith(_NPY):
        try:
            _check_npy(data)
            return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
        except Exception as error:  # NumPy's parser raises whatever a damaged header makes it trip over
            raise InvalidArgument(f"{name}the NumPy file cannot be read: {error}", field="images") from error
    if why := explain_unsupported(data[:HEAD_BYTES]):
        raise InvalidArgument(f"{name}{why}", field="images")
    return data


def _check_npy(data: bytes) -> None:
    """ValueError for a file that ends before its array does, whose header would have memory allocated for all of it."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _NPY_HEADERS:
        raise ValueError(f"version {version} is for arrays that are no images")
    shape, _, dtype = _NPY_HEADERS[version](file)
    wanted, there = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if wanted > there and not dtype.hasobject:
        raise ValueError(
            f"it is damaged or truncated: an array {shape} of {dtype} has {wanted} bytes, {there} are there"
        )


def _of_pillow(image: PillowImage) -> Array:
    """The pixels that a file of this picture has at the worker."""
    try:
        return np.asarray(to_rgb(image))
    except PictureError as error:
        raise InvalidArgument(str(error), field="images") from error
    except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them trip over
        raise InvalidArgument(f"the Pillow image cannot be read: {error}", field="images") from error


def _packed(content: SentImage | bytes | Array, stated: spec_pb2.ValueRange.ValueType) -> SentImage:
    """One image, judged. InvalidArgument for what is none."""
    if isinstance(content, SentImage):
        return content
    if isinstance(content, bytes):
        if stated not in {spec_pb2.VALUE_RANGE_UNSPECIFIED, spec_pb2.VALUE_RANGE_0_255}:
            raise misplaced_range("an image file")
        return SentImage(None, content)
    pixels, spanned = to_pixels(content, stated, ALLOWED)
    about = tensor_pb2.Tensor(datatype=tensors.datatype_of(pixels.dtype), shape=pixels.shape)
    return SentImage(about, tensors.buffer_of(pixels), spanned)


def _frames(batch: Array, stated: spec_pb2.ValueRange.ValueType) -> Iterator[SentImage]:
    """The images of an array (N,H,W,C)."""
    spanned = range_of_batch(batch, stated, ALLOWED)
    return (_packed(frame, spanned) for frame in batch)


def picture(image: SentImage) -> PillowImage:
    """The photo as the network saw it but for its size: upright RGB, for figures. Needs Pillow."""
    from PIL import Image

    if image.about is None:
        with open_picture(image.data) as file:
            return to_rgb(file)
    pixels = tensors.decode(image.about, image.data)
    if pixels.dtype != np.uint8:
        spanning = value_ranges.to_255(pixels.view(np.float32), image.value_range)
        pixels = np.rint(np.clip(spanning, 0, 255)).astype(np.uint8, copy=False)
    height, width, _ = pixels.shape
    return Image.fromarray(np.broadcast_to(pixels.view(np.uint8), (height, width, 3)))
