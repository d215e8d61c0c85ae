"""Loops that make calls which wait together as one: under load a round trip is shared; nobody waits for company."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from convlens.jobs.runtime.background import Loop

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
        self._threads = [Loop(name, self._round, at_end=self._rest) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __call__(self, item: T) -> asyncio.Future[R]:
        """Has a call made for `item`. To be called in the loop's thread."""
        future: asyncio.Future[R] = self._loop.create_future()
        self._waiting.put((item, future))
        return future

    def close(self) -> None:
        """Makes the calls that wait, then ends the threads."""
        for thread in self._threads:
            thread.request_stop()
            self._waiting.put(None)
        for thread in self._threads:
            thread.stop()

    def _round(self) -> None:
        """Makes one call for what waits, once something does; for a second."""
        calls: list[tuple[T, asyncio.Future[R]] | None] = []
        with contextlib.suppress(queue.Empty):
            calls.append(self._waiting.get(timeout=1.0))
            while len(calls) < self._most:
                calls.append(self._waiting.get_nowait())
        self._make([call for call in calls if call])

    def _rest(self) -> None:
        """Makes the calls that still wait."""
        while not self._waiting.empty():
            self._round()

    def _make(self, calls: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        if not calls:
            return
        answers: Sequence[R | Exception]
        try:
            answers = self._function([item for item, _ in calls])
            if len(answers) != len(calls):
                raise RuntimeError(f"{len(calls)} calls have {len(answers)} answers")  # noqa: TRY301 - told to them all
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
