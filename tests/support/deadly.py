"""A worker that can be killed by what it is asked: python -m deadly, with a worker's flags.

Its `null` models fill their arrays, as a network does, and at a marked target kill their process as the kernel does
when there is no memory left: nothing of it can say anything any more.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

from convlens.worker.__main__ import main
from convlens.worker.models import loaders
from convlens.worker.models.null import NullModel

DEADLY = 903
"""The marked target."""


class Deadly(NullModel):
    """As null, but for the marked target; its zeros take memory."""

    def run(self, images, plan, targets):
        if (targets == DEADLY).any():
            os.kill(os.getpid(), signal.SIGKILL)
        found = super().run(images, plan, targets)
        return replace(found, maps={item: map_ + 0 for item, map_ in found.maps.items()})


if __name__ == "__main__":
    loaders.LOADERS["null"] = Deadly
    sys.exit(main())
