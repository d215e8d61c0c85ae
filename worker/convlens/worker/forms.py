"""The form a result's arrays are given in: resized, normalised, in fewer bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from convlens.jobs.plan import PlannedTensor
from convlens.v1 import codec, tensor_pb2
from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.resize import resized


def formed(
    parts: Sequence[Floats], tensor: PlannedTensor, lead: int
) -> tuple[list[codec.Array], tensor_pb2.TensorSpec]:
    """An array as `tensor` promises it, in the parts that passes gave of its images, and what announces it.

    `lead` axes count maps; the rest are one map's.
    """
    sent: list[codec.Array] = []
    scale: list[float] = []
    offset: list[float] = []
    for part in parts:
        array = _shaped(part, tensor, lead)
        shape = len(part), *tensor.shape[1:]
        if tensor.form.datatype == tensor_pb2.DATA_TYPE_UINT8:
            steps, scales, offsets = codec.quantized(array, lead)
            sent.append(steps.reshape(shape))
            scale += scales
            offset += offsets
        elif tensor.form.datatype == tensor_pb2.DATA_TYPE_FP16:
            with np.errstate(over="ignore"):  # infinite, as promised
                sent.append(array.reshape(shape).astype("<f2"))
        else:
            sent.append(array.reshape(shape))
    spec = codec.describe(sent[0], tensor.name, *sent[1:])
    spec.channels.extend(tensor.channels)
    spec.scale.extend(scale)
    spec.offset.extend(offset)
    return sent, spec


def _shaped(array: Floats, tensor: PlannedTensor, lead: int) -> Floats:
    """Some images' maps resized and normalised."""
    form = tensor.form
    if form.size:
        array = _resized(array, form.size, lead)
    if form.normalization != "none":
        rows = array.reshape(int(np.prod(array.shape[:lead])), -1)
        array = NORMALIZATIONS[form.normalization](rows).reshape(array.shape)
    return np.ascontiguousarray(array, "<f4")


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
