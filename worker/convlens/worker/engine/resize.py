"""Resizes maps: bilinear, half-pixel centres, an area's mean where it shrinks. Knows NumPy and Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image

from convlens.worker.engine.outputs import Floats


def resized(planes: Floats, height: int, width: int) -> Floats:
    """(…,h,w) as (…,height,width), float32."""
    *lead, h, w = planes.shape
    out = np.empty((int(np.prod(lead, dtype=int)), height, width), np.float32)
    for plane, into in zip(planes.reshape(-1, h, w).astype(np.float32), out, strict=True):
        into[:] = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
    return out.reshape(*lead, height, width)


class Resizer:
    """One map (h,w) or (h,w,c), to be resized some rows at a time: a whole one may be hundreds of times as large."""

    def __init__(self, large: Floats, height: int, width: int) -> None:
        self._shape = (height, width, *large.shape[2:])
        planes = np.moveaxis(large.reshape(*large.shape[:2], -1), -1, 0)
        self._planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in planes]

    def rows(self, start: int, end: int) -> Floats:
        """Rows `start` to `end` of what resized() gives, to within float32's rounding of their places in the map."""
        height, width, *_ = self._shape
        out = np.empty((end - start, width, len(self._planes)), np.float32)
        for i, plane in enumerate(self._planes):
            box = (0, start * plane.height / height, plane.width, end * plane.height / height)
            out[..., i] = np.asarray(plane.resize((width, end - start), Image.Resampling.BILINEAR, box))
        return out.reshape(end - start, *self._shape[1:])
