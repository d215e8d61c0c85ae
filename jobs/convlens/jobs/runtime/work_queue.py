"""A bounded queue with threads that work on what is put into it, several items at once where several wait."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable
from typing import Generic, TypeVar

from convlens.jobs.runtime.background import DEADLINE, Loop

T = TypeVar("T")


class WorkQueue(Generic[T]):
    """Guarded threads (see background.py) that take items in the order in which they were put."""

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], object],
        *,
        threads: int = 1,
        capacity: int = 0,
        batch: int = 1,
        deadline: float = DEADLINE,
    ) -> None:
        """Call `work` with up to `batch` items. `capacity` bounds the queue; 0 does not.

        A thread that works on a batch for longer than `deadline` seconds counts as late.
        """
        self._work = work
        self._batch = batch
        self._items: queue.Queue[T | None] = queue.Queue(capacity)
        """None is its end."""
        self._loops = [
            Loop(f"{name}-{number}", self._run_batch, at_end=self._run_rest, deadline=deadline)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for loop in self._loops:
            loop.start()

    def put(self, item: T) -> None:
        """Add an item; waits while the queue is full."""
        self._items.put(item)

    def close(self) -> None:
        """Work on what is queued, then end the threads. Nothing may be put any more."""
        for loop in self._loops:
            loop.request_stop()
        self._items.put(None)
        for loop in self._loops:
            loop.stop()

    def _run_batch(self) -> None:
        """Work on the next batch, for which it waits a second."""
        if items := self._take(1.0):
            self._work(items)

    def _run_rest(self) -> None:
        while items := self._take(0.001):
            with self._loops[0].guard():
                self._work(items)

    def _take(self, seconds: float) -> list[T]:
        """Return the next items; none where none came in time, or the queue is closed."""
        items: list[T] = []
        with contextlib.suppress(queue.Empty):
            while len(items) < self._batch:
                item = self._items.get_nowait() if items else self._items.get(timeout=seconds)
                if item is None:
                    self._items.put(None)  # for the other threads
                    break
                items.append(item)
        return items
