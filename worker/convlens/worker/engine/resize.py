"""Resize maps: bilinear with half-pixel centres, antialiased when they shrink. Uses NumPy and Pillow alone."""

from __future__ import annotations

import numpy as np
from PIL import Image

from convlens.worker.engine.outputs import Floats


def resize(planes: Floats, height: int, width: int) -> Floats:
    """Resize (…,h,w) to (…,height,width), float32."""
    *lead, h, w = planes.shape
    out = np.empty((int(np.prod(lead, dtype=int)), height, width), np.float32)
    for plane, target in zip(planes.reshape(-1, h, w).astype(np.float32), out, strict=True):
        target[:] = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
    return out.reshape(*lead, height, width)


class RowResizer:
    """Resizes one map, (h,w) or (h,w,c), a few rows at a time, since the whole may be hundreds of times as large."""

    def __init__(self, map_: Floats, height: int, width: int) -> None:
        self._shape = (height, width, *map_.shape[2:])
        planes = np.moveaxis(map_.reshape(*map_.shape[:2], -1), -1, 0)
        self._planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in planes]

    def rows(self, start: int, end: int) -> Floats:
        """Return rows `start` to `end` of what resize() gives, up to float32's rounding of their coordinates."""
        height, width, *_ = self._shape
        out = np.empty((end - start, width, len(self._planes)), np.float32)
        for i, plane in enumerate(self._planes):
            box = (0, start * plane.height / height, plane.width, end * plane.height / height)
            out[..., i] = np.asarray(plane.resize((width, end - start), Image.Resampling.BILINEAR, box))
        return out.reshape(end - start, *self._shape[1:])
