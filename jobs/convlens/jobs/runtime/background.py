"""Background threads, all of one guarded kind.

A loop survives whatever one of its rounds raises, logs and counts it, and knows when it last did its work, so that
health can tell when one is dead or late. Knows nothing of what the loops do.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import Counter

from convlens.jobs.runtime.redis_client import is_unavailable

log = logging.getLogger(__name__)

DEADLINE: Final = 60.0
"""Seconds without a good round after which a loop is late: longer than Redis' time limits with all retries."""
PAUSE: Final = 1.0
"""Seconds after a round that failed, of a loop without an interval."""
REPEAT: Final = 60.0
"""Seconds after which the same error is logged again."""

_ERRORS: Final = Counter("convlens_background_errors", "Rounds of background loops that failed.", ["loop"])


class Rounds:
    """The outcomes of a loop's rounds. Redis being away is no fault of the loop: such a round is not missed."""

    def __init__(self, name: str, deadline: float = DEADLINE) -> None:
        self.name = name
        self._deadline = deadline
        self._errors = _ERRORS.labels(name)
        self._logged: dict[tuple[type[Exception], str], float] = {}
        """When an error was logged last, by its type and where it was raised."""
        self._failed = 0
        """Rounds that failed since the last good one."""
        self._done = time.monotonic()

    def begin(self) -> None:
        """Counts the time to the first round from now on."""
        self._done = time.monotonic()

    @property
    def is_late(self) -> bool:
        """True when its last good round is longer ago than the deadline."""
        return time.monotonic() - self._done > self._deadline

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Runs one round; suppresses, logs and counts what it raises."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the next round comes whatever happened in this one
            self._failed += 1
            self._errors.inc()
            self._log(error)
            if is_unavailable(error):
                self._done = time.monotonic()
        else:
            if self._failed:
                log.info("loop=%s works again after %d failed rounds", self.name, self._failed)
            self._failed = 0
            self._done = time.monotonic()

    @property
    def has_failed(self) -> bool:
        """True when the latest round failed."""
        return self._failed > 0

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

    Where the interval is 0, `work` waits for something by itself, for a second at most: so the loop is seen to run.
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
    def is_well(self) -> bool:
        """False when the thread has ended by itself, or is late."""
        return self._thread.is_alive() and not self._rounds.is_late

    def start(self) -> None:
        """Starts the thread; from now on it is one of those that unwell() looks at."""
        self._rounds.begin()
        self._thread.start()
        _started.append(self)

    def request_stop(self) -> None:
        """Has the thread end after the round under way; returns at once."""
        if self in _started:
            _started.remove(self)
        self._stop.set()

    def stop(self) -> None:
        """Ends the thread and waits for its end."""
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


_started: list[Loop] = []


def unwell() -> list[str]:
    """The names of this process' loops that are dead or late, though nobody stopped them."""
    return [loop.name for loop in list(_started) if not loop.is_well]


def _origin(error: Exception) -> str:
    """Where an exception was raised: file and line."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
