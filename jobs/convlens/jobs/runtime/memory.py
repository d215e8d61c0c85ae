"""Memory of large messages and arrays, kept for the next ones.

glibc gives blocks of more than 128 KiB back to the kernel and takes them again, page by page, zeroed each time: a tenth
of what a server does with images and results (docs/plane.md).
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

_TRIM, _MMAP, _ARENAS = -1, -3, -8
"""mallopt's M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX."""
BLOCK: Final = 32 << 20
"""Blocks up to this size come from memory that is kept; glibc allows no more."""
KEPT: Final = 128 << 20
"""Bytes kept at most, of each arena."""


def keep(arenas: int | None = None) -> None:
    """Has this process keep it, where its C library is glibc, in so many arenas; None: as many as glibc makes.

    Of one arena alone trim() gives all back: of the others glibc keeps the end, of up to 64 MiB each.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_MMAP, BLOCK)
        mallopt(_TRIM, KEPT)
        if arenas is not None:
            mallopt(_ARENAS, arenas)


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
