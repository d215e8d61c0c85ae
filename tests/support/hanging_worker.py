"""A worker that hangs on demand: python -m hanging_worker, with a worker's flags.

Its `null` models never return on two marked targets; on one of them they also keep the interpreter's lock (GIL). On a
signal the main thread, which runs Celery's consumer, waits for ever.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading

from convlens.worker.__main__ import main
from convlens.worker.models import loaders
from convlens.worker.models.null import NullModel

HANGING_TARGET = 901
GIL_TARGET = 902
"""Hangs with the interpreter's lock held, so that no other thread runs."""
HANG_CONSUMER = signal.SIGRTMIN
"""Signal after which Celery's consumer takes no more messages."""


def hang(*_: object) -> None:
    """Block the calling thread for ever."""
    threading.Event().wait()


class HangingModel(NullModel):
    """A null model that never returns on the marked targets."""

    def run(self, images, plan, targets):
        if (targets == HANGING_TARGET).any():
            hang()
        if (targets == GIL_TARGET).any():
            ctypes.PyDLL(None).sleep(1 << 20)  # PyDLL calls do not release the interpreter's lock
        return super().run(images, plan, targets)


if __name__ == "__main__":
    loaders.LOADERS["null"] = HangingModel
    signal.signal(HANG_CONSUMER, hang)
    sys.exit(main())
