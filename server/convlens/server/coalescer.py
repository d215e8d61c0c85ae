"""Coalesces calls that wait at the same time into one: under load they share a round trip; alone, none is delayed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from convlens.jobs.runtime.background import WorkQueue

T = TypeVar("T")
R = TypeVar("R")


class Coalescer(Generic[T, R]):
    """Runs a blocking function over batches of items in threads, and resolves one future per item.

    The function returns one result per item, in order. An exception among the results fails the future of its item; an
    exception that the function raises fails the futures of the whole batch.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        function: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        max_batch: int = 16,
        threads: int = 1,
    ) -> None:
        """Start the threads. One is best where the function hardly waits: more of them make smaller batches."""
        self._loop = loop
        self._function = function
        self._queue = WorkQueue(name, self._run_batch, threads=threads, batch=max_batch)
        self._queue.start()

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue `item` and return the future of its result. For the event loop's thread alone."""
        future: asyncio.Future[R] = self._loop.create_future()
        self._queue.put((item, future))
        return future

    def close(self) -> None:
        """Run what is pending, then stop the threads."""
        self._queue.close()

    def _run_batch(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        results: Sequence[R | Exception]
        try:
            results = self._function([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - raised by the futures
            results = [error] * len(batch)
        self._loop.call_soon_threadsafe(_resolve, [future for _, future in batch], results)


def _resolve(futures: Sequence[asyncio.Future[R]], results: Sequence[R | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.cancelled():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
