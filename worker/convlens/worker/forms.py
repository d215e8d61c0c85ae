"""The form a result's arrays are given in: resized, normalised, in fewer bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from convlens.jobs.plan import PlannedTensor
from convlens.v1 import codec, tensor_pb2
from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.resize import resized


def formed(array: Floats, tensor: PlannedTensor, lead: int) -> tuple[codec.Array, tensor_pb2.TensorSpec]:
    """An array as `tensor` promises it, and what announces it. `lead` axes count maps; the rest are one map's."""
    form = tensor.form
    if form.size:
        array = _resized(array, form.size, lead)
    if form.normalization != "none":
        rows = array.reshape(int(np.prod(array.shape[:lead])), -1)
        array = NORMALIZATIONS[form.normalization](rows).reshape(array.shape)
    array = np.ascontiguousarray(array, "<f4").reshape(tensor.shape)
    scale: list[float] = []
    offset: list[float] = []
    sent: codec.Array = array
    if form.datatype == tensor_pb2.DATA_TYPE_UINT8:
        sent, scale, offset = codec.quantized(array, lead)
    elif form.datatype == tensor_pb2.DATA_TYPE_FP16:
        with np.errstate(over="ignore"):  # infinite, as promised
            sent = array.astype("<f2")
    spec = codec.describe(sent, tensor.name)
    spec.channels.extend(tensor.channels)
    spec.scale.extend(scale)
    spec.offset.extend(offset)
    return sent, spec


def _resized(array: Floats, size: tuple[int, int], lead: int) -> Floats:
    """(lead…,h,w) or (lead…,h,w,c), rows and columns resized."""
    if array.ndim == lead + 2:
        return resized(array, *size)
    return np.moveaxis(resized(np.moveaxis(array, -1, lead), *size), lead, -1)


def _min_max(rows: Floats) -> Floats:
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    return _divided(rows - low, high - low)


def _max_abs(rows: Floats) -> Floats:
    return _divided(rows, np.abs(rows).max(1, keepdims=True))


def _divided(rows: Floats, by: Floats) -> Floats:
    """Zeros where `by` is none."""
    return np.divide(rows, by, out=np.zeros_like(rows), where=by > 0)


NORMALIZATIONS: Final[dict[str, Callable[[Floats], Floats]]] = {"min_max": _min_max, "max_abs": _max_abs}
"""One row a way: each row of (M,…) by itself."""
