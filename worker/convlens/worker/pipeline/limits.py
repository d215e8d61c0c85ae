"""What a worker holds at once: images of a model's small jobs, and bytes of the arrays of large ones."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BATCHES_IN_FLIGHT: Final = 2
"""One on the device, one fetched and decoded meanwhile."""
OVERCOMMIT: Final = 4
"""Times the limit that may be in hand where newly active flows come while it is reached."""


@dataclass(slots=True)
class Reservation:
    """What one thread may claim."""

    images: int
    used: int = 0
    """How many images it did claim; more only where a single job has more."""


class InFlightLimit:
    """Room for `images` images of a model: enough to keep the device busy, and no more than it needs for that.

    What is not claimed yet may still go to another worker, or give way to a caller whose turn comes first. A thread
    reserves all that is free, uses some, and waits while nothing is.

    A job of a newly active flow is to ride in the next batch though others have filled the room: after overcommit()
    one thread may claim a job beyond the limit.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self._free = images
        self._may_overcommit = False
        self._changed = threading.Condition()

    @property
    def _is_open(self) -> bool:
        return self._free > 0 or (self._may_overcommit and self._free > -OVERCOMMIT * self.images)

    @property
    def is_used(self) -> bool:
        """True while something is reserved."""
        return self._free < self.images

    @contextlib.contextmanager
    def reserve(self) -> Iterator[Reservation]:
        """Wait until something is free and reserve all of it, at least one image; what is not used is released."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_open)
            self._may_overcommit = False
            reservation = Reservation(max(1, self._free))
            self._free -= reservation.images
        try:
            yield reservation
        finally:
            self.release(reservation.images - reservation.used)

    def wait(self, seconds: float) -> bool:
        """Wait until something can be reserved; False when nothing can after so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_open, seconds)

    def overcommit(self) -> None:
        """Let one thread claim a job now, where the limit is reached."""
        with self._changed:
            self._may_overcommit = self._free <= 0
            self._changed.notify_all()

    def release(self, images: int) -> None:
        """Free images that the device is through with."""
        with self._changed:
            self._free += images
            self._changed.notify_all()


class Budget:
    """A semaphore that threads reserve parts of, in the order in which they came, however much each needs."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """Wait for this amount, at most the whole budget, and hold it for the duration of a `with`."""
        amount = min(amount, self._total)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and amount <= self._free)
                self._free -= amount
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
