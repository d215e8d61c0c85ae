"""How the kernel shares busy processors among the threads of servers and workers.

Calls pass through a dozen threads, and a woken one usually interrupts who runs on its processor: mostly the very thread
that would have more for it to do in a moment (docs/plane.md).
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def batch() -> None:
    """Has every thread of this process, once woken, wait for a free processor or the end of another's slice.

    Those that are started later inherit it. Where the kernel is Linux, allows it, and was not told of another policy
    before.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            for thread in Path("/proc/self/task").iterdir():
                os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))
