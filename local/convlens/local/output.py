"""The output of the children of `convlens up`: all of it goes to a log file, what calls for action to stderr, too."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

LOG: Final = "up.log"
"""Name of the log in the data folder."""
MAX_BYTES: Final = 16 << 20
"""Of the log; the one before it is kept as up.log.1."""
_PROBLEM: Final = re.compile(r"time=\S+ level=(WARNING|ERROR|CRITICAL) logger=(?:convlens\S*|__main__) (.*)")


def problem_in(line: str) -> tuple[str, str] | None:
    """Return level and message of a warning or an error that server or worker logged; None for any other line."""
    match = _PROBLEM.match(line)
    return (match[1].lower(), match[2]) if match else None


class Output:
    """Writes lines behind the name of the process that they come from, to the file `log`, or to stderr for None."""

    def __init__(self, log: Path | None) -> None:
        """Open the log, which its owner alone can read. Raises OSError."""
        self._file = _LogFile(log, maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8") if log else None

    def write(self, name: str, line: str) -> None:
        """Write a line of a child's output."""
        if self._file is None:
            _print(f"{name} | {line}")
            return
        self._file.emit(logging.makeLogRecord({"msg": f"{name} | {line}"}))
        if problem := problem_in(line):
            _print(f"{name} | {': '.join(problem)}")

    def report(self, name: str, text: str) -> None:
        """Write what happened to a child, always to stderr, too."""
        if self._file is not None:
            self._file.emit(logging.makeLogRecord({"msg": f"{name} | {text}"}))
        _print(f"{name} | {text}")

    def show(self, name: str, line: str) -> None:
        """Print a line that is already in the log."""
        if self._file is not None:
            _print(f"{name} | {line}")

    def close(self) -> None:
        """Close the log."""
        if self._file is not None:
            self._file.close()


class _LogFile(RotatingFileHandler):
    """A log that is closed to other users, and whose full disk ends no child."""

    def _open(self) -> io.TextIOWrapper:
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        return os.fdopen(file, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the line."""


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
