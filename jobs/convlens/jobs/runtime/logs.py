"""Logs on stderr: one line for each event, with key=value pairs."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Final

MOST: Final = 10
"""Warnings and errors with the same message, apart from its values, that are logged in one second."""


class RateLimit(logging.Filter):
    """Drops repeated warnings and errors: callers, or an outage, could fill the log. The next one says how many."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}
        """By logger and message: a second, and the records in it."""
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged; the first of a second gets the number of those that were not."""
        if record.levelno < logging.WARNING:
            return True
        key, now = (record.name, str(record.msg)), int(record.created)
        with self._lock:
            second, count = self._counts.pop(key, (now, 0))
            if second != now and count > MOST:
                record.msg = f"{record.msg} ({count - MOST} more like this were not logged)"
            self._counts[key] = (now, count + 1 if second == now else 1)
            if len(self._counts) > 1000:
                del self._counts[next(iter(self._counts))]
            return self._counts[key][1] <= MOST


def configure(level: str) -> None:
    """Log to stderr from `level` on, with UTC timestamps."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="time=%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    logging.Formatter.converter = time.gmtime
    for handler in logging.root.handlers:
        handler.addFilter(RateLimit())
