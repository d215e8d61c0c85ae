"""Images as callers have them, packed for the wire: files as their bytes, pixels as tensors.

docs/images.md lists every way to give an image. files.py reads files, arrays.py checks arrays, convlens.v1 decodes.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeGuard, TypeVar

import numpy as np

from convlens.client.arrays import ValueRange, as_array, misplaced_range, range_of_batch, to_pixels, wire_range
from convlens.client.errors import InvalidArgument
from convlens.client.files import Readable, read_file, read_path, read_resource
from convlens.v1 import spec_pb2, tensors, value_ranges, visualization_pb2
from convlens.v1.file_signatures import HEAD_BYTES, explain_unsupported
from convlens.v1.image_formats import PictureError, open_picture
from convlens.v1.pictures import to_rgb
from convlens.v1.tensors import Array

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image as PillowImage


T = TypeVar("T")


class ArrayLike(Protocol):
    """A tensor of TensorFlow, PyTorch, JAX, or whatever else NumPy reads."""

    def __array__(self) -> npt.NDArray[Any]:
        """Return the tensor as an array."""


class DLPackTensor(Protocol):
    """A tensor by the DLPack protocol, on this machine's memory."""

    def __dlpack__(self, *, stream: None = None) -> Any:
        """Return the tensor as a capsule."""


ImageFile: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Readable"
"""A path, a file's bytes, or an open file."""
Pixels: TypeAlias = "PillowImage | npt.NDArray[Any] | ArrayLike | DLPackTensor"
"""A Pillow image, or an array or tensor of RGB (H,W,3) or grey (H,W), (H,W,1)."""
ImageLike: TypeAlias = "ImageFile | Pixels | SentImage"
"""One image."""
Images: TypeAlias = "ImageLike | Iterable[ImageLike]"
"""One ImageLike, several, or an array (N,H,W,3) or (N,H,W,1)."""
MapImages: TypeAlias = "Iterable[ImageLike]"
"""The images of map()."""
AsyncMapImages: TypeAlias = "Iterable[ImageLike] | AsyncIterable[ImageLike]"
"""The images of AsyncClient.map()."""
ALLOWED: Final = (
    "a path, bytes, a Pillow image, or an open file, an array or a tensor; arrays are (H,W,3) of RGB or (H,W) of grey, "
    "batches (N,H,W,3)"
)
_NPY: Final = b"\x93NUMPY"
_NPY_HEADERS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""The reader of the header, by format version."""


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image as it is sent: independent of what it was made from, and picklable."""

    serialized: bytes
    """A VisualizeRequest with this image alone."""

    @property
    def message(self) -> spec_pb2.Image:
        """The Image message."""
        return visualization_pb2.VisualizeRequest.FromString(self.serialized).spec.images[0]

    @property
    def encoded(self) -> bytes:
        """The bytes of an image file; empty for pixels."""
        return self.message.encoded

    @property
    def pixels(self) -> Array | None:
        """The pixels of an array, uint8 or float32 (H,W,3) or (H,W,1), read-only; None for an image file."""
        message = self.message
        return tensors.decode(message.pixels) if message.HasField("pixels") else None

    def __repr__(self) -> str:
        return f"<SentImage of {len(self.serialized):,} bytes>"


def pack(images: Images, value_range: ValueRange | None = None) -> list[SentImage]:
    """Pack every image, in order. InvalidArgument for anything else; OSError for a file that cannot be read.

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
    for i, image in enumerate(several):
        try:
            packed.append(pack_one(image, value_range))
        except InvalidArgument as error:
            raise InvalidArgument(f"images[{i}]: {error.message}", field=error.field) from error
    return packed


def pack_one(image: ImageLike, value_range: ValueRange | None = None) -> SentImage:
    """Pack one image of several. Errors as of pack()."""
    return _packed(_content(image), wire_range(value_range))


def one_by_one(images: T, value_range: ValueRange | None) -> T | Iterable[ImageLike]:
    """Return the images of map(): those of an iterable, or of a batch (N,H,W,3), which is checked as a whole.

    InvalidArgument for a single image, whose rows or characters would pass for images otherwise.
    """
    stated = wire_range(value_range)
    if isinstance(images, AsyncIterable) or _is_several(images):
        return images
    content = _content(images)
    if not _is_batch(content):
        raise InvalidArgument(f"map takes many images; give [image] for one {_kind(images)}", field="images")
    return _frames(content, stated)


def may_block(images: object) -> bool:
    """Return True if packing may read files or decode pictures, which an event loop leaves to a thread."""
    items = images if isinstance(images, list | tuple) else [images]
    return not all(isinstance(item, np.ndarray | SentImage | bytes | bytearray | memoryview) for item in items)


def _is_several(images: Any) -> TypeGuard[Iterable[ImageLike]]:
    """Return True for an iterable of images, or an array of paths; False for one image, a batch, or anything else."""
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
    """Return True for Pillow's images, without importing Pillow."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


def _is_tensor(image: Any) -> bool:
    return hasattr(image, "__array__") or hasattr(image, "__dlpack__")


def _kind(image: Any) -> str:
    return type(image).__name__


def _content(image: Any) -> SentImage | bytes | Array:
    """Return the bytes of an image file, or an array that is still to be checked."""
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
    """Return the bytes of an image file, or the array in a NumPy file."""
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
    """Raise ValueError for a NumPy file shorter than its array, before memory is allocated for the array."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _NPY_HEADERS:
        raise ValueError(f"version {version} is for arrays that are no images")
    shape, _, dtype = _NPY_HEADERS[version](file)
    expected, actual = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if expected > actual and not dtype.hasobject:
        raise ValueError(
            f"it is damaged or truncated: an array {shape} of {dtype} has {expected} bytes, {actual} are there"
        )


def _of_pillow(image: PillowImage) -> Array:
    """Return the pixels that the worker would decode from a file of this picture."""
    try:
        return np.asarray(to_rgb(image))
    except PictureError as error:
        raise InvalidArgument(str(error), field="images") from error
    except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them trip over
        raise InvalidArgument(f"the Pillow image cannot be read: {error}", field="images") from error


def _packed(content: SentImage | bytes | Array, stated: spec_pb2.ValueRange.ValueType) -> SentImage:
    """Check and serialize one image. InvalidArgument if it is none."""
    if isinstance(content, SentImage):
        return content
    request = visualization_pb2.VisualizeRequest()
    if isinstance(content, bytes):
        if stated not in {spec_pb2.VALUE_RANGE_UNSPECIFIED, spec_pb2.VALUE_RANGE_0_255}:
            raise misplaced_range("an image file")
        request.spec.images.add(encoded=content)
        return SentImage(request.SerializeToString())
    pixels, spanned = to_pixels(content, stated, ALLOWED)
    image = request.spec.images.add(value_range=spanned)
    image.pixels.datatype = tensors.datatype_of(pixels.dtype)
    image.pixels.shape.extend(pixels.shape)
    image.pixels.data = bytes(tensors.buffer_of(pixels))  # set here, since adding a message would copy it once more
    return SentImage(request.SerializeToString())


def _frames(batch: Array, stated: spec_pb2.ValueRange.ValueType) -> Iterator[SentImage]:
    """Pack the images of an array (N,H,W,C)."""
    spanned = range_of_batch(batch, stated, ALLOWED)
    return (_packed(frame, spanned) for frame in batch)


def picture(image: SentImage) -> PillowImage:
    """Return the image at its own size as the network saw it: upright RGB, for figures. Needs Pillow."""
    from PIL import Image

    message = image.message
    if message.WhichOneof("source") == "encoded":
        with open_picture(message.encoded) as file:
            return to_rgb(file)
    pixels = tensors.decode(message.pixels)
    if pixels.dtype != np.uint8:
        spanning = value_ranges.to_255(pixels.view(np.float32), message.value_range)
        pixels = np.rint(np.clip(spanning, 0, 255)).astype(np.uint8, copy=False)
    height, width, _ = pixels.shape
    return Image.fromarray(np.broadcast_to(pixels.view(np.uint8), (height, width, 3)))
