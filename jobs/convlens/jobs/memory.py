"""Memory of large messages and arrays, kept for the next ones.

glibc gives blocks of more than 128 KiB back to the kernel and takes them again, page by page, zeroed each time: a tenth
of what a server does with images and results (docs/plane.md).
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

_TRIM, _MMAP = -1, -3
"""mallopt's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
BLOCK: Final = 32 << 20
"""Blocks up to this size come from memory that is kept; glibc allows no more."""
KEPT: Final = 128 << 20
"""Bytes kept at most, of each arena."""


def keep() -> None:
    """Has this process keep it, where its C library is glibc."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_MMAP, BLOCK)
        mallopt(_TRIM, KEPT)


def trim() -> None:
    """Gives what is kept and free back to the kernel: a burst is over, and the next messages fault their pages anew."""
    if sys.platform == "linux" and (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        malloc_trim(0)


def settle() -> None:
    """To be called once a process is ready: what is there by then stays, and the collector looks at it no more.

    It would take 0.16 s of everybody's time, now and then, where TensorFlow is loaded.
    """
    gc.collect()
    gc.freeze()
