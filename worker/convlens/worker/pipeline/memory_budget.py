"""What threads of a worker may hold at once of something that there is only so much of: bytes, say."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Budget:
    """An amount that threads take from and give back; who asks first is served first, however much it asks for."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """Waits for that much and holds it; more than there is in all is all that there is."""
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
