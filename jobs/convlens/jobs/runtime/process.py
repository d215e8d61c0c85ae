"""The settings of a server's or worker's own process: file descriptors, scheduling, allocator, garbage collector."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys
import time
from pathlib import Path
from typing import Final

from convlens.jobs.runtime.background import Loop

DESCRIPTORS: Final = 1 << 20
"""The soft limit of descriptors where there is no hard one."""
_TRIM, _MMAP, _ARENAS = -1, -3, -8
"""mallopt's M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX."""
BLOCK: Final = 32 << 20
"""Blocks up to this size are reused; glibc allows no more."""
FREE_BYTES: Final = 128 << 20
"""Free bytes that each arena keeps at its end."""
FREED_BYTES: Final = 16 << 20
"""Freed memory below this is not returned."""
BUSY_SECONDS: Final = 10.0
"""A trim stops all allocations for some milliseconds."""
IDLE_CPU_SECONDS: Final = 0.25
"""A process that used less in the last second is idle."""


def prepare(arenas: int | None = None) -> None:
    """Set all that is set before a server or worker starts its threads; `arenas` as in keep_freed_blocks()."""
    raise_descriptor_limit()
    keep_freed_blocks(arenas)
    use_batch_policy()


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors, often 1,024, to the hard one; each connection and open file takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def use_batch_policy() -> None:
    """Set SCHED_BATCH for all threads, so that one that wakes up does not preempt another; new threads inherit it.

    A call passes through a dozen threads, and the one that is preempted would often have given the other more to do in
    a moment. Does nothing where the kernel is not Linux, forbids it, or another policy was set before.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            for thread in Path("/proc/self/task").iterdir():
                os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))


def keep_freed_blocks(arenas: int | None = None) -> None:
    """Let glibc keep freed blocks for the next allocations, in so many arenas; None: as many as glibc makes.

    By default it returns freed blocks of more than 128 KiB to the kernel, and each new one is zeroed page by page: a
    tenth of what a server spends on images and results.
    Of the main arena malloc_trim() returns everything, of each other one all but its end, up to 64 MiB.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_MMAP, BLOCK)
        mallopt(_TRIM, FREE_BYTES)
        if arenas is not None:
            mallopt(_ARENAS, arenas)


class Trimmer:
    """A loop that returns freed memory to the kernel: as soon as the process is idle, and else every BUSY_SECONDS."""

    def __init__(self) -> None:
        self._loop = Loop("memory", self._round, 1.0)
        self._is_possible = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")
        self._unused = 0
        """Resident bytes that no trim returns."""
        self._cpu_seconds = 0.0
        self._trimmed_at = 0.0

    def start(self) -> None:
        """Start the loop; on other systems than Linux with glibc there is nothing to do."""
        if self._is_possible:
            self._loop.start()

    def stop(self) -> None:
        """End the loop."""
        self._loop.stop()

    def _round(self) -> None:
        now, cpu_seconds = time.monotonic(), time.process_time()
        is_idle = cpu_seconds - self._cpu_seconds < IDLE_CPU_SECONDS
        self._cpu_seconds = cpu_seconds
        unused = _unused_bytes()
        self._unused = min(self._unused, unused)
        if unused - self._unused > FREED_BYTES and (is_idle or now - self._trimmed_at > BUSY_SECONDS):
            ctypes.CDLL(None).malloc_trim(0)
            self._trimmed_at = now
            if is_idle:
                self._unused = _unused_bytes()


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def _unused_bytes() -> int:
    """Return the resident bytes that malloc has not given out: freed blocks, and code."""
    if not (mallinfo := getattr(ctypes.CDLL(None), "mallinfo2", None)):  # before glibc 2.33
        return resident_bytes()
    mallinfo.restype = _Mallinfo
    allocated = mallinfo()
    return resident_bytes() - int(allocated.uordblks) - int(allocated.hblkhd)


def resident_bytes() -> int:
    """Return the resident memory of this process. Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def freeze_objects() -> None:
    """Exempt all present objects from garbage collection; call it once a process is ready.

    With TensorFlow loaded a full collection stops all threads for 0.16 s.
    """
    gc.collect()
    gc.freeze()
