"""Threads that make calls which wait together as one: under load a round trip is shared; nobody waits for company."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """One kind of call, which takes the items of several and gives what came of each.

    An exception in the place of an answer is raised to the caller whose it is; one that is raised, to all of them.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        function: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        most: int = 16,
        threads: int = 1,
    ) -> None:
        """No more than `most` go together. One thread is best where the call hardly waits."""
        self._loop = loop
        self._function = function
        self._most = most
        self._waiting: queue.SimpleQueue[tuple[T, asyncio.Future[R]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __call__(self, item: T) -> asyncio.Future[R]:
        """Has a call made for `item`. To be called in the loop's thread."""
        future: asyncio.Future[R] = self._loop.create_future()
        self._waiting.put((item, future))
        return future

    def close(self) -> None:
        """Makes the calls that wait, then ends the threads."""
        self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            calls = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(calls) < self._most:
                    calls.append(self._waiting.get_nowait())
            closing = None in calls
            self._make([call for call in calls if call])
            del calls  # what they brought is not needed while the next are waited for
        self._waiting.put(None)  # for the next thread

    def _make(self, calls: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        if not calls:
            return
        answers: Sequence[R | Exception]
        try:
            answers = self._function([item for item, _ in calls])
        except Exception as error:  # noqa: BLE001 - raised to the callers
            answers = [error] * len(calls)
        self._loop.call_soon_threadsafe(_tell, [future for _, future in calls], answers)


def _tell(futures: Sequence[asyncio.Future[R]], answers: Sequence[R | Exception]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if future.cancelled():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
