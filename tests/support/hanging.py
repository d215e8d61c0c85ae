"""A worker that can be made to hang: python -m hanging, with a worker's flags.

Its `null` models hang on a marked target, their device waiting for ever, or not even letting another thread of the
process run; and at a signal the main thread, which is Celery's consumer, waits for ever.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading

from convlens.worker.__main__ import main
from convlens.worker.models import loaders
from convlens.worker.models.null import NullModel

WAITS, GRIPS = 901, 902
"""The marked targets."""
DEAFEN = signal.SIGRTMIN


def hang(*_: object) -> None:
    """For ever."""
    threading.Event().wait()


class Hanging(NullModel):
    """As null, but for marked targets."""

    def run(self, images, plan, targets):
        if (targets == WAITS).any():
            hang()
        if (targets == GRIPS).any():
            ctypes.PyDLL(None).sleep(1 << 20)  # a PyDLL's functions keep the interpreter's lock
        return super().run(images, plan, targets)


if __name__ == "__main__":
    loaders.LOADERS["null"] = Hanging
    signal.signal(DEAFEN, hang)
    sys.exit(main())
