"""A worker that one marked target kills: python -m crashing_worker, with a worker's flags.

Its `null` models write their arrays, as a network does. On the marked target they send their process SIGKILL, as the
kernel does when memory runs out, so that the worker cannot report anything.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

from convlens.worker.__main__ import main
from convlens.worker.models import loaders
from convlens.worker.models.null import NullModel

CRASHING_TARGET = 903


class CrashingModel(NullModel):
    """A null model that writes its maps to memory and kills its process on CRASHING_TARGET."""

    def run(self, images, plan, targets):
        if (targets == CRASHING_TARGET).any():
            os.kill(os.getpid(), signal.SIGKILL)
        outputs = super().run(images, plan, targets)
        return replace(outputs, maps={item: map_ + 0 for item, map_ in outputs.maps.items()})


if __name__ == "__main__":
    loaders.LOADERS["null"] = CrashingModel
    sys.exit(main())
