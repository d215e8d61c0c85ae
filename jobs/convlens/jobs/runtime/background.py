"""Background threads, all of one guarded kind: loops, and queues of work.

A loop survives whatever one of its rounds raises, logs and counts it, and records when it last succeeded, so that
health checks detect a dead or late one.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from prometheus_client import Counter

from convlens.jobs.runtime.redis_client import is_unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

DEADLINE: Final = 60.0
"""Seconds without a successful round after which a loop is late: longer than Redis' time limits with all retries."""
PAUSE: Final = 1.0
"""Seconds between a failed round and the next, of a loop without an interval."""
REPEAT: Final = 60.0
"""Seconds until the same error is logged again."""

_ERRORS: Final = Counter("convlens_background_errors", "Rounds of background loops that failed.", ["loop"])


class Rounds:
    """The outcomes of a loop's rounds. A round that fails while Redis is unavailable does not make the loop late."""

    def __init__(self, name: str, deadline: float = DEADLINE) -> None:
        self.name = name
        self._deadline = deadline
        self._errors = _ERRORS.labels(name)
        self._logged: dict[tuple[type[Exception], str], float] = {}
        """When an error was logged last, by type and origin."""
        self._failures = 0
        """Failed rounds since the last successful one."""
        self._last_success = time.monotonic()

    def start(self) -> None:
        """Count the time to the first round from now on."""
        self._last_success = time.monotonic()

    @property
    def is_late(self) -> bool:
        """Whether the last successful round is longer ago than the deadline."""
        return time.monotonic() - self._last_success > self._deadline

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Run one round; suppress, log and count what it raises."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the loop goes on whatever a round raises
            self._failures += 1
            self._errors.inc()
            self._log(error)
            if is_unavailable(error):
                self._last_success = time.monotonic()
        else:
            if self._failures:
                log.info("loop=%s works again after %d failed rounds", self.name, self._failures)
            self._failures = 0
            self._last_success = time.monotonic()

    @property
    def has_failed(self) -> bool:
        """Whether the latest round failed."""
        return self._failures > 0

    def _log(self, error: Exception) -> None:
        now = time.monotonic()
        cause = type(error), _origin(error)
        if now - self._logged.get(cause, -REPEAT) < REPEAT:
            return
        self._logged[cause] = now
        if is_unavailable(error):
            log.warning("loop=%s %s; it tries again", self.name, error)
        else:
            log.error("loop=%s a round failed; the next one follows", self.name, exc_info=error)


class Loop:
    """A thread that calls `work` every `interval` seconds until it is stopped, then `at_end` once.

    With an interval of 0 `work` blocks by itself, for a second at most, so that the loop is not late.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        interval: float = 0.0,
        *,
        at_end: Callable[[], object] | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self.name = name
        self._work = work
        self._interval = interval
        self._at_end = at_end
        self._rounds = Rounds(name, deadline + interval)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_healthy(self) -> bool:
        """Whether the thread runs and is not late."""
        return self._thread.is_alive() and not self._rounds.is_late

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """Suppress, log and count what a step of `at_end` raises, as for a round."""
        return self._rounds.guard()

    def start(self) -> None:
        """Start the thread; from now on unhealthy_loops() checks it."""
        self._rounds.start()
        self._thread.start()
        _started.append(self)

    def request_stop(self) -> None:
        """Let the thread end after the round under way; returns at once."""
        if self in _started:
            _started.remove(self)
        self._stop.set()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self.request_stop()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval or (PAUSE if self._rounds.has_failed else 0.0)):
            with self._rounds.guard():
                self._work()
        if self._at_end:
            with self._rounds.guard():
                self._at_end()


class WorkQueue(Generic[T]):
    """A bounded queue whose threads take items in the order of arrival, several at once where several wait."""

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


_started: list[Loop] = []


def unhealthy_loops() -> list[str]:
    """Return the names of this process' loops that are dead or late, but for those that were stopped."""
    return [loop.name for loop in list(_started) if not loop.is_healthy]


def call_together(*functions: Callable[[], object]) -> None:
    """Call functions that wait, such as those that stop loops, side by side; return when all have."""
    with ThreadPoolExecutor(len(functions)) as threads:
        for call in [threads.submit(function) for function in functions]:
            call.result()


def _origin(error: Exception) -> str:
    """Return file and line where an exception was raised."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
