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
