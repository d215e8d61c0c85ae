"""A semaphore in order of arrival: bounds the bytes that the large jobs of a worker hold at once."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Budget:
    """An amount that threads reserve parts of, in the order in which they came, however much each needs."""

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
