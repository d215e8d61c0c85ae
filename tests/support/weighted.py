"""A worker of models whose answers tell their weights: python -m weighted, with a worker's flags.

The maps of `random:SEED` are full of the seed, a batch takes WEIGHTED_SECONDS, and some seeds cannot be served.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time

from convlens.worker.__main__ import main
from convlens.worker.models import loaders
from convlens.worker.models.null import NullModel

RAISES = {"901": KeyError("no such layer"), "902": MemoryError(), "903": RecursionError("too deep")}
"""What loading these seeds raises."""
STUMBLES = "904"
"""The seed of a model that loads, and whose first pass raises ValueError."""


def digest(seed: int) -> str:
    """Of the weights that `seed` makes."""
    return hashlib.sha256(str(seed).encode()).hexdigest()


class Weighted(NullModel):
    """As null, but for what the maps hold."""

    def __init__(self, source):
        if source.argument in RAISES:
            raise RAISES[source.argument]
        super().__init__(source)
        self.card.digest = digest(source.argument)
        self._seed = source.argument

    def warm_up(self):
        if self._seed == STUMBLES:
            raise ValueError("shapes do not fit")

    def run(self, images, plan, targets):
        time.sleep(float(os.environ.get("WEIGHTED_SECONDS", "0")))
        outputs = super().run(images, plan, targets)
        return dataclasses.replace(outputs, maps={it: array + int(self._seed) for it, array in outputs.maps.items()})


if __name__ == "__main__":
    loaders.LOADERS["random"] = Weighted
    sys.exit(main())
