"""How many images a worker has in hand for a model's device: enough to keep it busy, no more than it needs for that.

What is not claimed yet may still go to another worker, or give way to a caller whose turn comes first.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

BATCHES_IN_HAND: Final = 2
"""One on the device, one fetched and decoded meanwhile."""
BEYOND: Final = 4
"""Times as many images as there is room for may be in hand, where jobs that are urgent come to a full room."""


@dataclass(slots=True)
class Taken:
    """The room that one thread has to itself."""

    free: int
    """Images."""
    used: int = 0
    """How many of them it takes in the end; more only where a single job has more."""


class Room:
    """Room for `images` images; threads take all that is free, use some, and wait while there is none.

    Somebody's job may be urgent: it is to ride in the next batch though others have filled the room. One thread may
    then take a job beyond it.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self._free = images
        self._urgent = False
        self._changed = threading.Condition()

    @property
    def full(self) -> bool:
        """True while there is none; a moment later that may be otherwise."""
        return self._free <= 0

    @contextlib.contextmanager
    def taken(self, called: Callable[[], bool] = lambda: False) -> Iterator[Taken]:
        """All that is free, one image at least; what is not used is free again afterwards.

        None once `called`, which is asked whenever the device is through with something: there is other work to do.
        """
        with self._changed:
            while not called() and self._free <= 0 and not (self._urgent and self._free > -BEYOND * self.images):
                self._changed.wait()
            taken = Taken(0)
            if self._free > 0 or not called():
                self._urgent = False
                taken.free = max(1, self._free)
                self._free -= taken.free
        try:
            yield taken
        finally:
            self.release(taken.free - taken.used)

    def urge(self) -> None:
        """Lets one thread take a job now, room or not."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()

    def release(self, images: int) -> None:
        """Images that the device is through with."""
        with self._changed:
            self._free += images
            self._changed.notify_all()
