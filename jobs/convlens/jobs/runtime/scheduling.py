"""The kernel's scheduling policy for the threads of servers and workers.

A call passes through a dozen threads. By default a thread that wakes up preempts the one that runs, often the very
thread that would have given it more to do in a moment.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def use_batch_policy() -> None:
    """Set SCHED_BATCH for all threads, so that one that wakes up does not preempt another; new threads inherit it.

    Does nothing where the kernel is not Linux, forbids it, or another policy was set before.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            for thread in Path("/proc/self/task").iterdir():
                os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))
