"""NumPy arrays to tensors and back, by the Open Inference Protocol's semantics: raw, row-major, little-endian.

Knows the messages of tensor.proto and NumPy, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng

from convlens.v1 import tensor_pb2 as pb

Array = npt.NDArray[np.generic]

_DTYPES: Final[dict[pb.DataType.ValueType, np.dtype[np.generic]]] = {
    pb.DATA_TYPE_FP32: np.dtype("<f4"),
    pb.DATA_TYPE_FP16: np.dtype("<f2"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
    pb.DATA_TYPE_INT64: np.dtype("<i8"),
}
_DATATYPES: Final = {dtype: datatype for datatype, dtype in _DTYPES.items()}


class CodecError(ValueError):
    """Bytes, shape and datatype that do not make an array, or an array that has no datatype on the wire."""


def dtype_of(datatype: pb.DataType.ValueType) -> np.dtype[np.generic]:
    """The little-endian NumPy dtype of `datatype`; CodecError when it names none."""
    try:
        return _DTYPES[datatype]
    except KeyError:
        raise CodecError(f"datatype {datatype} is none of {', '.join(map(pb.DataType.Name, _DTYPES))}") from None


def datatype_of(dtype: np.dtype[np.generic]) -> pb.DataType.ValueType:
    """The datatype of `dtype`; CodecError for other types and for big-endian ones: never swapped in silence."""
    try:
        return _DATATYPES[dtype]
    except KeyError:
        allowed = ", ".join(d.name for d in _DATATYPES)
        raise CodecError(f"dtype {dtype.str} cannot be sent: little-endian {allowed} can") from None


def byte_size(datatype: pb.DataType.ValueType, shape: Sequence[int]) -> int:
    """The bytes of an array: product(shape) × element size, in exact integers; CodecError for a negative axis."""
    if any(axis < 0 for axis in shape):
        raise CodecError(f"shape {list(shape)} has a negative axis")
    return math.prod(shape) * dtype_of(datatype).itemsize


def buffer_of(array: Array) -> memoryview:
    """The bytes of `array`, row-major; a view of it where it is contiguous, else of a copy."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def encode(array: Array, name: str = "") -> pb.Tensor:
    """`array` as a message: one copy of its bytes. CodecError for a dtype the wire does not have."""
    return pb.Tensor(name=name, datatype=datatype_of(array.dtype), shape=array.shape, data=bytes(buffer_of(array)))


def decode(tensor: pb.Tensor, data: bytes | memoryview | None = None) -> Array:
    """The array of `tensor`: a read-only view of its bytes, or of `data` in their place. CodecError if they misfit."""
    data = tensor.data if data is None else data
    expected = byte_size(tensor.datatype, tensor.shape)
    if len(data) != expected:
        raise CodecError(
            f"data has {len(data)} bytes, but shape {list(tensor.shape)} of "
            f"{pb.DataType.Name(tensor.datatype)} takes {expected}"
        )
    try:
        return np.frombuffer(data, dtype_of(tensor.datatype)).reshape(tuple(tensor.shape))
    except ValueError as error:
        raise CodecError(f"shape of {len(tensor.shape)} axes: {error}") from None


def describe(array: Array, name: str, *more: Array) -> pb.TensorSpec:
    """What announces `array` before its bytes follow in chunks, checksum included; `more` lengthens its first axis."""
    spec = pb.TensorSpec(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
    for part in (array, *more):
        data = buffer_of(part)
        spec.byte_size += data.nbytes
        spec.crc32 = zlib_ng.crc32(data, spec.crc32)
    for part in more:
        spec.shape[0] += len(part)
    return spec


def quantized(maps: npt.NDArray[np.float32], lead: int) -> tuple[npt.NDArray[np.uint8], list[float], list[float]]:
    """Each map (the axes behind `lead` leading ones) in 256 even steps: uint8 values, and scale and offset of each.

    Wrong by half a step at most, (max − min)/510. Values must be finite.
    """
    rows = maps.reshape(math.prod(maps.shape[:lead]), -1)
    steps = np.empty(rows.shape, np.uint8)
    scale, offset = [], []
    for row, into in zip(rows, steps, strict=True):  # a row at a time stays in the cache
        step, lowest = steps_between(row.min(initial=np.inf), row.max(initial=-np.inf))
        into[:] = quantize(row, step, lowest)
        scale.append(float(step))
        offset.append(float(lowest))
    return steps.reshape(maps.shape), scale, offset


def steps_between(lowest: np.float32, highest: np.float32) -> tuple[np.float32, np.float32]:
    """The step of 256 even ones between the least and the greatest value of a map, and where they begin."""
    return (highest - lowest) / np.float32(255), lowest


def quantize(values: npt.NDArray[np.float32], step: np.float32, lowest: np.float32) -> npt.NDArray[np.uint8]:
    """Which step of steps_between() each value is nearest to."""
    if not step > 0:
        return np.zeros(values.shape, np.uint8)
    scaled = (values - lowest) / step
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint8)


def allocate(spec: pb.TensorSpec) -> Array:
    """An uninitialised array as `spec` announces it, for its chunks to fill. CodecError where it contradicts itself."""
    expected = byte_size(spec.datatype, spec.shape)
    if spec.byte_size != expected:
        raise CodecError(f"tensor {spec.name!r} announces {spec.byte_size} bytes, but its shape takes {expected}")
    try:
        return np.empty(tuple(spec.shape), dtype_of(spec.datatype))
    except ValueError as error:
        raise CodecError(f"tensor {spec.name!r}, shape of {len(spec.shape)} axes: {error}") from None


def verify(array: Array, spec: pb.TensorSpec) -> None:
    """CodecError unless the bytes of `array` have the checksum of `spec`."""
    found = zlib_ng.crc32(buffer_of(array))
    if found != spec.crc32:
        raise CodecError(f"tensor {spec.name!r} arrived with CRC-32 {found:08x}, announced was {spec.crc32:08x}")
