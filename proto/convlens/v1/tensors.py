"""NumPy arrays ↔ Tensor messages, by the Open Inference Protocol's semantics: raw bytes, row-major, little-endian.

Also how maps are quantized to uint8. Knows tensor.proto and NumPy, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from convlens.v1 import tensor_pb2 as pb
from convlens.v1.checksum import crc32

Array = npt.NDArray[np.generic]

_DTYPES: Final[dict[pb.DataType.ValueType, np.dtype[np.generic]]] = {
    pb.DATA_TYPE_FP32: np.dtype("<f4"),
    pb.DATA_TYPE_FP16: np.dtype("<f2"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
    pb.DATA_TYPE_INT64: np.dtype("<i8"),
}
OUTPUT_DATATYPES: Final = (pb.DATA_TYPE_FP32, pb.DATA_TYPE_FP16, pb.DATA_TYPE_UINT8)
"""What the arrays of a result can be."""
_DATATYPES: Final = {dtype: datatype for datatype, dtype in _DTYPES.items()}


class TensorError(ValueError):
    """A tensor whose bytes, shape and datatype do not fit, or an array whose dtype has no datatype on the wire."""


def dtype_of(datatype: pb.DataType.ValueType) -> np.dtype[np.generic]:
    """Return the little-endian NumPy dtype of `datatype`. Raises TensorError where it names none."""
    try:
        return _DTYPES[datatype]
    except KeyError:
        raise TensorError(f"datatype {datatype} is none of {', '.join(map(pb.DataType.Name, _DTYPES))}") from None


def datatype_of(dtype: np.dtype[np.generic]) -> pb.DataType.ValueType:
    """Return the datatype of `dtype`. Raises TensorError for others, big-endian ones among them."""
    try:
        return _DATATYPES[dtype]
    except KeyError:
        allowed = ", ".join(known.name for known in _DATATYPES)
        raise TensorError(f"dtype {dtype.str} cannot be sent: little-endian {allowed} can") from None


def byte_size(datatype: pb.DataType.ValueType, shape: Sequence[int]) -> int:
    """Return an array's size in bytes, in exact integers. Raises TensorError for a negative axis."""
    if any(axis < 0 for axis in shape):
        raise TensorError(f"shape {list(shape)} has a negative axis")
    return math.prod(shape) * dtype_of(datatype).itemsize


def buffer_of(array: Array) -> memoryview:
    """Return the bytes of `array`, row-major: a view of it where it is contiguous, else of a copy."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def encode(array: Array, name: str = "") -> pb.Tensor:
    """Return `array` as a message, with one copy of its bytes. Raises TensorError for a dtype not on the wire."""
    return pb.Tensor(name=name, datatype=datatype_of(array.dtype), shape=array.shape, data=bytes(buffer_of(array)))


def decode(tensor: pb.Tensor, data: bytes | memoryview | None = None) -> Array:
    """Return a read-only array over the bytes of `tensor`, or over `data` in their place.

    Raises TensorError where bytes, shape and datatype do not fit.
    """
    data = tensor.data if data is None else data
    expected = byte_size(tensor.datatype, tensor.shape)
    if len(data) != expected:
        raise TensorError(
            f"data has {len(data)} bytes, but shape {list(tensor.shape)} of "
            f"{pb.DataType.Name(tensor.datatype)} takes {expected}"
        )
    try:
        return np.frombuffer(data, dtype_of(tensor.datatype)).reshape(tuple(tensor.shape))
    except ValueError as error:
        raise TensorError(f"shape of {len(tensor.shape)} axes: {error}") from None


def describe(array: Array, name: str) -> pb.TensorSpec:
    """Return the TensorSpec, CRC-32 included, that precedes the bytes of `array`."""
    data = buffer_of(array)
    return pb.TensorSpec(
        name=name, datatype=datatype_of(array.dtype), shape=array.shape, byte_size=data.nbytes, crc32=crc32(data)
    )


def quantize_maps(maps: npt.NDArray[np.float32], lead: int) -> tuple[npt.NDArray[np.uint8], list[float], list[float]]:
    """Quantize each map to 256 even steps; return uint8 of the same shape, and each map's scale and offset.

    The first `lead` axes count maps. Values must be finite; none is off by more than half a step, (max − min)/510.
    """
    rows = maps.reshape(math.prod(maps.shape[:lead]), -1)
    steps = np.empty(rows.shape, np.uint8)
    scales, offsets = [], []
    for row, row_steps in zip(rows, steps, strict=True):  # a row at a time stays in the processor's cache
        scale, offset = scale_and_offset(row.min(initial=np.inf), row.max(initial=-np.inf))
        row_steps[:] = quantize(row, scale, offset)
        scales.append(float(scale))
        offsets.append(float(offset))
    return steps.reshape(maps.shape), scales, offsets


def scale_and_offset(lowest: np.float32, highest: np.float32) -> tuple[np.float32, np.float32]:
    """Return the size of 256 even steps from the least to the greatest value of a map, and where they begin."""
    return (highest - lowest) / np.float32(255), lowest


def quantize(values: npt.NDArray[np.float32], scale: np.float32, offset: np.float32) -> npt.NDArray[np.uint8]:
    """Return the step that each value is nearest to; zeros for a scale of 0."""
    if not scale > 0:
        return np.zeros(values.shape, np.uint8)
    scaled = (values - offset) / scale
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint8)


def allocate(spec: pb.TensorSpec) -> Array:
    """Return an uninitialised array for the bytes that follow `spec`. Raises TensorError for sizes that do not fit."""
    expected = byte_size(spec.datatype, spec.shape)
    if spec.byte_size != expected:
        raise TensorError(f"tensor {spec.name!r} announces {spec.byte_size} bytes, but its shape takes {expected}")
    try:
        return np.empty(tuple(spec.shape), dtype_of(spec.datatype))
    except ValueError as error:
        raise TensorError(f"tensor {spec.name!r}, shape of {len(spec.shape)} axes: {error}") from None


def verify(array: Array, spec: pb.TensorSpec) -> None:
    """Raise TensorError unless the bytes of `array` have the checksum of `spec`."""
    checksum = crc32(buffer_of(array))
    if checksum != spec.crc32:
        raise TensorError(f"tensor {spec.name!r} arrived with CRC-32 {checksum:08x}, announced was {spec.crc32:08x}")
