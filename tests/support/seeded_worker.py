"""A worker whose maps show which weights made them: python -m seeded_worker, with a worker's flags.

Every value in the maps of `random:SEED` is the seed. A batch takes BATCH_SECONDS. Some seeds cannot be served.
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

LOAD_ERRORS = {"901": KeyError("no such layer"), "902": MemoryError(), "903": RecursionError("too deep")}
"""Errors raised when the model of a seed is loaded."""
WARM_UP_FAILS = "904"
"""The seed of a model that loads and whose first pass raises ValueError."""


def digest(seed: int) -> str:
    """The digest that the model card of `seed` shows."""
    return hashlib.sha256(str(seed).encode()).hexdigest()


class SeededModel(NullModel):
    """A null model whose maps hold its seed."""

    def __init__(self, source):
        if source.argument in LOAD_ERRORS:
            raise LOAD_ERRORS[source.argument]
        super().__init__(source)
        self.card.digest = digest(source.argument)
        self._seed = source.argument

    def warm_up(self):
        if self._seed == WARM_UP_FAILS:
            raise ValueError("shapes do not fit")

    def run(self, images, plan, targets):
        time.sleep(float(os.environ.get("BATCH_SECONDS", "0")))
        outputs = super().run(images, plan, targets)
        maps = {item: array + int(self._seed) for item, array in outputs.maps.items()}
        return dataclasses.replace(outputs, maps=maps)


if __name__ == "__main__":
    loaders.LOADERS["random"] = SeededModel
    sys.exit(main())
