"""Allocator and garbage collector settings of server and worker processes.

By default glibc returns freed blocks of more than 128 KiB to the kernel, and each new one is zeroed page by page: a
tenth of what a server spends on images and results.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

_TRIM, _MMAP, _ARENAS = -1, -3, -8
"""mallopt's M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX."""
BLOCK: Final = 32 << 20
"""Blocks up to this size are reused; glibc allows no more."""
FREE_BYTES: Final = 128 << 20
"""Free bytes that each arena keeps at its end."""


def keep_freed_blocks(arenas: int | None = None) -> None:
    """Let glibc keep freed blocks for the next allocations, in so many arenas; None: as many as glibc makes.

    Of the main arena trim() returns everything, of each other one all but its end, up to 64 MiB.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_MMAP, BLOCK)
        mallopt(_TRIM, FREE_BYTES)
        if arenas is not None:
            mallopt(_ARENAS, arenas)


def trim() -> None:
    """Return free memory to the kernel, after a burst; the next allocations take page faults again."""
    if sys.platform == "linux" and (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        malloc_trim(0)


def freeze_objects() -> None:
    """Exempt all present objects from garbage collection; call it once a process is ready.

    With TensorFlow loaded a full collection stops all threads for 0.16 s.
    """
    gc.collect()
    gc.freeze()
