"""Convert a result's arrays to their output format, resized, normalized, narrowed, in slices as they are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from convlens.v1 import tensor_pb2, tensors
from convlens.v1.checksum import crc32
from convlens.v1.request.plan import FLOAT_BYTES, OutputFormat, PlannedTensor
from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.resize import RowResizer, resize

SLICE_BYTES: Final = 8 << 20
"""Bytes of float32 that are converted at once."""


class TensorEncoder:
    """Encodes an array as `tensor` plans it, from the parts (n,…) that passes gave, and describes it.

    The first `lead` axes of the parts index maps; the others are a map's own.
    """

    def __init__(self, parts: Sequence[Floats], tensor: PlannedTensor, lead: int) -> None:
        self._parts = parts
        self._tensor = tensor
        self._lead = lead
        self._spec = tensor_pb2.TensorSpec(
            name=tensor.name,
            datatype=tensor.format.datatype,
            shape=tensor.shape,
            byte_size=tensor.byte_size,
            channels=tensor.channels,
        )

    @property
    def spec(self) -> tensor_pb2.TensorSpec:
        """The array's description; its checksum, scales and offsets are complete once all slices are consumed."""
        return self._spec

    def slices(self) -> Iterator[memoryview]:
        """Yield the array's bytes in order, of a few maps or of some rows of one at a time."""
        for part in self._parts:
            maps = part.reshape(math.prod(part.shape[: self._lead]), *part.shape[self._lead :])
            for array in self._convert(maps):
                data = tensors.buffer_of(array)
                self._spec.crc32 = crc32(data, self._spec.crc32)
                yield data

    def _convert(self, maps: Floats) -> Iterator[tensors.Array]:
        """Convert maps (M,…) to the output format."""
        form = self._tensor.format
        resized = (*form.size, *maps.shape[3:]) if form.size else maps.shape[1:]
        larger = max(1, math.prod(resized), math.prod(maps.shape[1:]))  # maps are copied before they shrink, too
        maps_per_slice = SLICE_BYTES // (FLOAT_BYTES * larger)
        if maps_per_slice:
            for start in range(0, len(maps), maps_per_slice):
                yield self._narrow(_resize_and_normalize(maps[start : start + maps_per_slice], form))
        else:
            for map_ in maps:
                yield from self._convert_bands(_Bands(map_, form.size))

    def _narrow(self, maps: Floats) -> tensors.Array:
        """Convert whole maps to the output datatype."""
        match self._tensor.format.datatype:
            case tensor_pb2.DATA_TYPE_UINT8:
                steps, scale, offset = tensors.quantize_maps(maps, 1)
                self._spec.scale.extend(scale)
                self._spec.offset.extend(offset)
                return steps
            case tensor_pb2.DATA_TYPE_FP16:
                return _to_fp16(maps)
        return maps

    def _convert_bands(self, bands: _Bands) -> Iterator[tensors.Array]:
        """Convert one map larger than a slice; a first iteration finds the extremes that normalization needs."""
        form = self._tensor.format
        normalize: Callable[[Floats], Floats] = _unchanged
        is_quantized = form.datatype == tensor_pb2.DATA_TYPE_UINT8
        if is_quantized or form.normalization != "none":
            extremes = np.array([(band.min(), band.max()) for band in bands]).T
            low, high = extremes[0].min(), extremes[1].max()
            normalize = NORMALIZERS[form.normalization](low, high)
            if is_quantized:
                step, lowest = tensors.scale_and_offset(*normalize(np.array([low, high], np.float32)))
                self._spec.scale.append(float(step))
                self._spec.offset.append(float(lowest))
        for band in bands:
            values = normalize(band)
            if is_quantized:
                yield tensors.quantize(values, step, lowest)
            else:
                yield _to_fp16(values) if form.datatype == tensor_pb2.DATA_TYPE_FP16 else values


class _Bands:
    """The bands of rows of a large map, resized; each iteration computes them anew."""

    def __init__(self, map_: Floats, size: tuple[int, int] | None) -> None:
        self._map = map_
        self._resizer = RowResizer(map_, *size) if size else None
        shape = (*size, *map_.shape[2:]) if size else map_.shape
        self._length = shape[0]
        self._rows = max(1, SLICE_BYTES // (FLOAT_BYTES * math.prod(shape[1:])))

    def __iter__(self) -> Iterator[Floats]:
        for start in range(0, self._length, self._rows):
            end = min(start + self._rows, self._length)
            yield self._resizer.rows(start, end) if self._resizer else np.ascontiguousarray(self._map[start:end], "<f4")


def _resize_and_normalize(maps: Floats, form: OutputFormat) -> Floats:
    """Resize and normalize maps (M,…)."""
    if form.size:
        maps = _resize_maps(maps, form.size)
    if form.normalization != "none":
        rows = maps.reshape(len(maps), -1)
        normalizer = NORMALIZERS[form.normalization]
        maps = normalizer(rows.min(1, keepdims=True), rows.max(1, keepdims=True))(rows).reshape(maps.shape)
    return np.ascontiguousarray(maps, "<f4")


def _resize_maps(maps: Floats, size: tuple[int, int]) -> Floats:
    """Resize (M,h,w) or (M,h,w,c) to `size`."""
    if maps.ndim == 3:
        return resize(maps, *size)
    return np.moveaxis(resize(np.moveaxis(maps, -1, 1), *size), 1, -1)


def _to_fp16(values: Floats) -> tensors.Array:
    with np.errstate(over="ignore"):  # infinity where it overflows, as documented
        return values.astype("<f2")


def _unchanged(rows: Floats) -> Floats:
    return rows


def _min_max(low: Floats, high: Floats) -> Callable[[Floats], Floats]:
    return lambda rows: _divide(rows - low, high - low)


def _max_abs(low: Floats, high: Floats) -> Callable[[Floats], Floats]:
    return lambda rows: _divide(rows, np.maximum(np.abs(low), np.abs(high)))


def _divide(rows: Floats, divisor: Floats) -> Floats:
    """Divide; 0 where the divisor is 0."""
    return np.divide(rows, divisor, out=np.zeros_like(rows), where=divisor > 0)


NORMALIZERS: Final[dict[str, Callable[[Floats, Floats], Callable[[Floats], Floats]]]] = {
    "none": lambda _low, _high: _unchanged,
    "min_max": _min_max,
    "max_abs": _max_abs,
}
"""By normalization: a function of each map's minimum and maximum that returns the function to apply to its values."""
