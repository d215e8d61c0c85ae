"""Reads files that may be replaced while the server runs, such as tokens and certificates, when they change."""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

SETTLING_SECONDS: Final = 1.0
"""A change that looks like a half-written file is ignored this long, and a failed read is repeated after it. Longer
than the resolution of any file system's clock, so that no second change within one step of it is missed."""


MAX_BYTES: Final = 4 << 20
"""Size limit of one file: enough for tens of thousands of tokens."""


class UnusableFile(Exception):
    """A file that cannot be read, or whose content is invalid. Names file and cause, never the content."""


class ReloadingFile(Generic[T]):
    """A value parsed from one or more files, reloaded at its next use after one of them has changed.

    Raises UnusableFile when they cannot be used at first. Later an unusable file (half-written, missing, unreadable, or
    not yet matching the others) is logged, and the last good value stays in force. A new value that lacks something of
    the last one is ignored for SETTLING_SECONDS, too: writers truncate a file, then write it piece by piece.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        parse: Callable[[list[bytes]], T],
        lacks: Callable[[T, T], bool],
        when_empty: str = "",
    ) -> None:
        """Read the files: paths by the names of their settings; `parse` takes their contents in that order.

        `lacks(new, old)` is true where something of `old` that callers rely on is missing in `new`. `when_empty` is
        logged for an empty value.
        """
        self._files = dict(files)
        self._parse = parse
        self._lacks = lacks
        self._when_empty = when_empty
        self._lock = threading.Lock()
        self._marks = self._read_marks()
        self._next_read = math.inf
        """When the files are read again even if none has changed, by the monotonic clock."""
        self._pending: tuple[list[bytes], float] | None = None
        """Contents that are not accepted yet, and when they were first seen."""
        self._logged = ""
        contents, value = self._read()
        self._accept(contents, value)
        self._warn_if_empty()

    @property
    def value(self) -> T:
        """The current value. Safe in any thread; takes a few microseconds when nothing has changed."""
        if self._read_marks() != self._marks or time.monotonic() >= self._next_read:
            with self._lock:
                self._reload()
        return self._value

    def _reload(self) -> None:
        self._marks = self._read_marks()  # before reading: what is written meanwhile is a change at the next use
        try:
            contents, value = self._read()
        except UnusableFile as error:
            self._pending = None
            self._keep(logging.ERROR, str(error))
            return
        if contents == self._contents:
            self._accept(contents, value)
        elif self._is_settled(contents, value):
            log.info("files=%s read again", self._names)
            self._accept(contents, value)
            self._warn_if_empty()
        else:
            self._keep(logging.WARNING, "something is missing that was there, as if a file were being written")

    def _accept(self, contents: list[bytes], value: T) -> None:
        self._contents, self._value = contents, value
        self._pending, self._logged = None, ""
        is_fresh = self._age() < SETTLING_SECONDS  # another change may have left the same marks
        self._next_read = time.monotonic() + SETTLING_SECONDS if is_fresh else math.inf

    def _warn_if_empty(self) -> None:
        if not self._value and self._when_empty:
            log.warning("%s %s", self._names, self._when_empty)

    def _keep(self, level: int, why: str) -> None:
        """Keep the last value, log the cause once, and schedule another read."""
        if why != self._logged:
            log.log(level, "%s; what was read last from %s stays in force", why, self._names)
        self._logged = why
        self._next_read = time.monotonic() + SETTLING_SECONDS

    def _is_settled(self, contents: list[bytes], value: T) -> bool:
        """Whether a change is complete: nothing is missing, or the files have not changed for SETTLING_SECONDS."""
        if not self._lacks(value, self._value):
            return True
        now = time.monotonic()
        if self._pending is None or self._pending[0] != contents:
            self._pending = contents, now
        return max(now - self._pending[1], self._age()) >= SETTLING_SECONDS

    def _age(self) -> float:
        """Return the seconds since the last change of any file, by the clocks of this machine and the file system."""
        changes = [mark[-1] for mark in self._marks if mark]
        return time.time() - max(changes, default=0) / 1e9

    def _read(self) -> tuple[list[bytes], T]:
        contents = []
        for setting, path in self._files.items():
            try:
                contents.append(_content(path))
            except OSError as error:
                raise UnusableFile(f"{setting}: cannot read {path}: {error.strerror}") from error
        return contents, self._parse(contents)

    def _read_marks(self) -> list[tuple[int, ...] | None]:
        return [_mark(path) for path in self._files.values()]

    @property
    def _names(self) -> str:
        return ", ".join(map(str, self._files.values()))


def _content(path: Path) -> bytes:
    """Return the content of a regular file. OSError for any other kind, which could block, and above MAX_BYTES."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - a descriptor
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file but a pipe or a device")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_BYTES >> 20} MiB")
    return content


def _mark(path: Path) -> tuple[int, ...] | None:
    """Return what changes with the file or its permissions; the time of the last change in ns comes last."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
