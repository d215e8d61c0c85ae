"""How many images a worker has in hand for a model's device: enough to keep it busy, no more than it needs for that.

What is not claimed yet may still go to another worker, or give way to a caller whose turn comes first.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BATCHES_IN_HAND: Final = 2
"""One on the device, one fetched and decoded meanwhile."""


@dataclass(slots=True)
class Taken:
    """The room that one thread has to itself."""

    free: int
    """Images."""
    used: int = 0
    """How many of them it takes in the end; more only where a single job has more."""


class Room:
    """Room for `images` images; threads take all that is free, use some, and wait while there is none."""

    def __init__(self, images: int) -> None:
        self.images = images
        self._free = images
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self) -> Iterator[Taken]:
        """All that is free, one image at least; what is not used is free again afterwards."""
        with self._changed:
            while self._free <= 0:
                self._changed.wait()
            taken = Taken(self._free)
            self._free = 0
        try:
            yield taken
        finally:
            self.release(taken.free - taken.used)

    def release(self, images: int) -> None:
        """Images that the device is through with."""
        with self._changed:
            self._free += images
            if self._free > 0:
                self._changed.notify_all()
