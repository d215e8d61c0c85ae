"""Arrays and tensors checked and converted to pixels: shape, dtype, and the range of their values."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from convlens.client.errors import InvalidArgument
from convlens.v1 import spec_pb2, value_ranges
from convlens.v1.tensors import Array

ValueRange = tuple[float, float]
"""The values of black and white in a float array: (0, 255), (0, 1) or (-1, 1)."""

NARROWEST_GREY: Final = 5
"""Pixels; a narrower array (H,W) is more likely a list of pixels than a picture."""


def wire_range(value_range: ValueRange | None) -> spec_pb2.ValueRange.ValueType:
    """Return a value range as its enum value. InvalidArgument for one that is not in value_ranges.RANGES."""
    if value_range is None:
        return spec_pb2.VALUE_RANGE_UNSPECIFIED
    try:
        return value_ranges.RANGES[tuple(value_range)]  # type: ignore[index]
    except (KeyError, TypeError):
        allowed = ", ".join(map(str, value_ranges.RANGES))
        raise InvalidArgument(f"value_range is {value_range!r}; allowed: {allowed}", field="value_range") from None


def as_array(tensor: Any) -> Array:
    """Convert a tensor to NumPy, by __array__ or DLPack. InvalidArgument if its memory cannot be read from here."""
    try:
        return np.asarray(tensor) if hasattr(tensor, "__array__") else np.from_dlpack(tensor)
    except (TypeError, ValueError, RuntimeError, BufferError, AttributeError) as error:
        remedy = "image.detach().cpu().numpy()" if hasattr(tensor, "detach") else "numpy.asarray(image)"
        reason = str(error).partition("\n")[0][:300]
        raise InvalidArgument(
            f"a {type(tensor).__name__} cannot be read as an array of this machine ({reason}); give a NumPy array, "
            f"such as {remedy}",
            field="images",
        ) from error


def range_of_batch(batch: Array, stated: spec_pb2.ValueRange.ValueType, allowed: str) -> spec_pb2.ValueRange.ValueType:
    """Return the value range of a batch (N,H,W,C), to be stated for each image: a dark frame among bright ones is dark.

    Errors as of to_pixels().
    """
    if why := _shape_refusal(batch.shape):
        raise _refused(batch, allowed, why)
    if not _is_float(batch):
        return stated
    _check_values(batch, stated)
    return stated or spec_pb2.VALUE_RANGE_0_255


def to_pixels(
    array: Array, stated: spec_pb2.ValueRange.ValueType, allowed: str
) -> tuple[Array, spec_pb2.ValueRange.ValueType]:
    """Return one image as pixels, uint8 or float32 (H,W,3) or (H,W,1), and their value range.

    Integers and floats of other widths are cast; floats that are all whole numbers in 0…255 become uint8, the same
    photo. InvalidArgument, with the remedy, for arrays that are no image, and for ambiguous values.
    """
    if why := _shape_refusal(array.shape):
        raise _refused(array, allowed, why)
    if array.ndim == 4:
        raise _refused(array, allowed, "a batch is given by itself, not among other images")
    if np.ma.is_masked(array):
        raise _refused(array, allowed, "some of its values are masked; say what is there: image.filled(0)")
    array = np.asarray(array)  # of a matrix or a masked array, what further axes can be given to
    if array.ndim == 2:
        array = array[..., None]
    if _is_float(array):
        _check_values(array, stated)
        floats = array.astype("<f4", copy=False)
        if (pixels := value_ranges.to_255(floats, stated)).dtype == np.uint8:
            return pixels, spec_pb2.VALUE_RANGE_UNSPECIFIED
        return floats, stated
    if array.dtype.kind in "ui":
        if stated not in {spec_pb2.VALUE_RANGE_UNSPECIFIED, spec_pb2.VALUE_RANGE_0_255}:
            raise misplaced_range("an array of integers")
        return _bytes(array, allowed), spec_pb2.VALUE_RANGE_UNSPECIFIED
    remedy = {
        "b": "of booleans make black and white: image.astype('uint8') * 255",
        "c": "complex numbers are no colours; give their magnitude, scaled to 0…255",
    }.get(array.dtype.kind, "it holds no numbers; give uint8, or floats")
    raise _refused(array, allowed, remedy)


def misplaced_range(what: str) -> InvalidArgument:
    """Return the error of a value range that is given for `what`, which cannot have one."""
    return InvalidArgument(
        f"value_range is for arrays of floats; {what} is always in 0…255: leave value_range out", field="value_range"
    )


def _bytes(array: Array, allowed: str) -> Array:
    """Convert integers to uint8. InvalidArgument for values outside 0…255."""
    if array.dtype == np.uint8:
        return array
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        remedy = "keep the upper 8 bits: (image >> 8).astype('uint8')" if array.dtype == np.uint16 else "scale them"
        raise _refused(array, allowed, f"it has values {low}…{high}, colours are 0…255; {remedy}")
    return array.astype(np.uint8)


def _is_float(array: Array) -> bool:
    """Return True for floats, bfloat16 included, which NumPy itself does not know."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _check_values(floats: Array, stated: spec_pb2.ValueRange.ValueType) -> None:
    """Raise InvalidArgument for values outside the stated range, or ambiguous ones if none is stated."""
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
        low, high = (float(np.float32(bound)) for bound in (floats.min(), floats.max()))
    if why := value_ranges.explain_refusal(low, high, stated):
        raise InvalidArgument(f"{_name(floats)}: {why}", field="images")


def _shape_refusal(shape: tuple[int, ...]) -> str | None:
    """Return why an array of this shape is neither an image nor a batch, and the remedy; None if it is one."""
    if 0 in shape:
        return "it is empty"
    if len(shape) == 1:
        return "it has one axis; of a file's bytes in an array give array.tobytes()"
    if len(shape) == 2:
        return None if shape[1] >= NARROWEST_GREY else "a grey picture as narrow as that is given as (H,W,1)"
    if len(shape) not in _CHANNELS_LAST:
        return "give each image by itself, (H,W,3)"
    first, _, last = shape[-3:]
    if last in {1, 3}:
        return None
    if first in {1, 3}:
        return f"its channels come first; give {_CHANNELS_LAST[len(shape)]}"
    if first == 4 != last:
        return f"its channels come first, and are RGBA; give {_CHANNELS_LAST[len(shape)]}, without the transparency"
    if last == 4:
        return _RGBA
    if last == 2:
        return "grey and alpha are not laid over a background; image[..., :1] drops the transparency"
    return "a batch of grey images is given as (N,H,W,1): images[..., None]"


_CHANNELS_LAST: Final = {
    3: "np.transpose(image, (1, 2, 0)), of PyTorch image.permute(1, 2, 0)",
    4: "np.transpose(images, (0, 2, 3, 1)), of PyTorch images.permute(0, 2, 3, 1)",
}
"""How to move the channels behind height and width, by the number of axes."""
_RGBA: Final = (
    "an RGBA array is not laid over a background; give PIL.Image.fromarray(image), which is laid over white, or "
    "image[..., :3], which drops the transparency"
)


def _refused(array: Array, allowed: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{_name(array)} is no image; allowed: {allowed}. This one: {why}", field="images")


def _name(array: Array) -> str:
    return f"{array.dtype} array {array.shape}"
