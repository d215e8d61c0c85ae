"""The form a result's arrays are given in: resized, normalised, in fewer bytes; made in slices as it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from zlib_ng import zlib_ng

from convlens.jobs.request.plan import FLOAT_BYTES, OutputFormat, PlannedTensor
from convlens.v1 import tensor_pb2, tensors
from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.resize import Resizer, resized

SLICE_BYTES: Final = 8 << 20
"""Of float32 that are given their form at once."""


class FormedTensor:
    """An array as `tensor` promises it, in the parts that passes gave of its images, and what announces it.

    `lead` axes count maps; the rest are one map's.
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
        """What announces it; whole once all slices were drawn."""
        return self._spec

    def slices(self) -> Iterator[memoryview]:
        """Its bytes in order, of few maps or of a part of one at a time."""
        for part in self._parts:
            maps = part.reshape(math.prod(part.shape[: self._lead]), *part.shape[self._lead :])
            for array in self._formed(maps):
                data = tensors.buffer_of(array)
                self._spec.crc32 = zlib_ng.crc32(data, self._spec.crc32)
                yield data

    def _formed(self, maps: Floats) -> Iterator[tensors.Array]:
        """Maps (M,…) in their form."""
        form = self._tensor.format
        placed = (*form.size, *maps.shape[3:]) if form.size else maps.shape[1:]
        larger = max(1, math.prod(placed), math.prod(maps.shape[1:]))  # maps are copied before they shrink, too
        together = SLICE_BYTES // (FLOAT_BYTES * larger)
        if together:
            for start in range(0, len(maps), together):
                yield self._encoded(_shaped(maps[start : start + together], form))
        else:
            for large in maps:
                yield from self._in_bands(_Bands(large, form.size))

    def _encoded(self, maps: Floats) -> tensors.Array:
        """Whole maps in their datatype."""
        match self._tensor.format.datatype:
            case tensor_pb2.DATA_TYPE_UINT8:
                steps, scale, offset = tensors.quantize_maps(maps, 1)
                self._spec.scale.extend(scale)
                self._spec.offset.extend(offset)
                return steps
            case tensor_pb2.DATA_TYPE_FP16:
                return _halves(maps)
        return maps

    def _in_bands(self, bands: _Bands) -> Iterator[tensors.Array]:
        """One map that is, or was, larger than a slice; extremes that its form needs are found in a first round."""
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
                yield _halves(values) if form.datatype == tensor_pb2.DATA_TYPE_FP16 else values


class _Bands:
    """A large map, resized, a few rows at a time; each round over it makes them anew."""

    def __init__(self, large: Floats, size: tuple[int, int] | None) -> None:
        self._map = large
        self._resizer = Resizer(large, *size) if size else None
        shape = (*size, *large.shape[2:]) if size else large.shape
        self._length = shape[0]
        self._rows = max(1, SLICE_BYTES // (FLOAT_BYTES * math.prod(shape[1:])))

    def __iter__(self) -> Iterator[Floats]:
        for start in range(0, self._length, self._rows):
            end = min(start + self._rows, self._length)
            yield self._resizer.rows(start, end) if self._resizer else np.ascontiguousarray(self._map[start:end], "<f4")


def _shaped(maps: Floats, form: OutputFormat) -> Floats:
    """Maps (M,…) resized and normalised."""
    if form.size:
        maps = _resized(maps, form.size)
    if form.normalization != "none":
        rows = maps.reshape(len(maps), -1)
        normalizer = NORMALIZERS[form.normalization]
        maps = normalizer(rows.min(1, keepdims=True), rows.max(1, keepdims=True))(rows).reshape(maps.shape)
    return np.ascontiguousarray(maps, "<f4")


def _resized(maps: Floats, size: tuple[int, int]) -> Floats:
    """(M,h,w) or (M,h,w,c), rows and columns resized."""
    if maps.ndim == 3:
        return resized(maps, *size)
    return np.moveaxis(resized(np.moveaxis(maps, -1, 1), *size), 1, -1)


def _halves(values: Floats) -> tensors.Array:
    with np.errstate(over="ignore"):  # infinite, as promised
        return values.astype("<f2")


def _unchanged(rows: Floats) -> Floats:
    return rows


def _min_max(low: Floats, high: Floats) -> Callable[[Floats], Floats]:
    return lambda rows: _divided(rows - low, high - low)


def _max_abs(low: Floats, high: Floats) -> Callable[[Floats], Floats]:
    return lambda rows: _divided(rows, np.maximum(np.abs(low), np.abs(high)))


def _divided(rows: Floats, by: Floats) -> Floats:
    """Zeros where `by` is none."""
    return np.divide(rows, by, out=np.zeros_like(rows), where=by > 0)


NORMALIZERS: Final[dict[str, Callable[[Floats, Floats], Callable[[Floats], Floats]]]] = {
    "none": lambda _low, _high: _unchanged,
    "min_max": _min_max,
    "max_abs": _max_abs,
}
"""One row a way: what the least and the greatest value of each map make of all of its values."""
