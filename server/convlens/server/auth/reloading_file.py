"""Files that may be replaced while the server runs: tokens, certificates. Knows nothing of what they hold."""

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
"""For how long a change that looks like a file being written is not believed, and after which a failed read is
repeated. Longer than the steps of any file system's clock, so that no change within one step is missed."""


MAX_BYTES: Final = 4 << 20
"""Of one file; tens of thousands of tokens."""


class Unusable(Exception):
    """A file that cannot be read, or does not hold what it must: which, and why, and never what it holds."""


class Watched(Generic[T]):
    """What the files of some settings hold together, read again at its next use once one of them has changed.

    Raises Unusable when they cannot be used at first. Later that is logged, and what was read last stays in force, be
    they half-written, gone, unreadable, no files, or replaced one after the other so that they do not fit each other
    yet. For a second that is also so where a new value lacks something that the last one had: writers truncate a file,
    then write it piece by piece.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        parse: Callable[[list[bytes]], T],
        lacks: Callable[[T, T], bool],
        when_empty: str = "",
    ) -> None:
        """`files` are paths by the names of their settings, `parse` makes the value of their contents in that order.

        `lacks(new, old)` is true where something of `old` that callers rely on is missing in `new`. `when_empty` is
        logged of a value that has nothing in it.
        """
        self._files = dict(files)
        self._parse = parse
        self._lacks = lacks
        self._when_empty = when_empty
        self._lock = threading.Lock()
        self._marks = self._look()
        self._again = math.inf
        """When the files are read again though none has changed; seconds of the monotonic clock."""
        self._doubted: tuple[list[bytes], float] | None = None
        """Contents that are not believed yet, and when they were first seen."""
        self._logged = ""
        contents, value = self._read()
        self._accept(contents, value)
        self._warn_if_empty()

    @property
    def value(self) -> T:
        """What the files hold now. Safe in any thread; a few microseconds when nothing has changed."""
        if self._look() != self._marks or time.monotonic() >= self._again:
            with self._lock:
                self._reload()
        return self._value

    def _reload(self) -> None:
        self._marks = self._look()  # before reading: what is written meanwhile is a change at the next use
        try:
            contents, value = self._read()
        except Unusable as error:
            self._doubted = None
            self._keep(logging.ERROR, str(error))
            return
        if contents == self._contents:
            self._accept(contents, value)
        elif self._is_believed(contents, value):
            log.info("files=%s read again", self._names)
            self._accept(contents, value)
            self._warn_if_empty()
        else:
            self._keep(logging.WARNING, "something is missing that was there, as if a file were being written")

    def _accept(self, contents: list[bytes], value: T) -> None:
        self._contents, self._value = contents, value
        self._doubted, self._logged = None, ""
        is_fresh = self._age() < SETTLING_SECONDS  # another change may have left the same marks
        self._again = time.monotonic() + SETTLING_SECONDS if is_fresh else math.inf

    def _warn_if_empty(self) -> None:
        if not self._value and self._when_empty:
            log.warning("%s %s", self._names, self._when_empty)

    def _keep(self, level: int, why: str) -> None:
        """Keeps the last value, logs why, once, and has the files read again after a while."""
        if why != self._logged:
            log.log(level, "%s; what was read last from %s stays in force", why, self._names)
        self._logged = why
        self._again = time.monotonic() + SETTLING_SECONDS

    def _is_believed(self, contents: list[bytes], value: T) -> bool:
        """Whether a change is what its writer meant: nothing is missing, or the files have not moved for a while."""
        if not self._lacks(value, self._value):
            return True
        now = time.monotonic()
        if self._doubted is None or self._doubted[0] != contents:
            self._doubted = contents, now
        return max(now - self._doubted[1], self._age()) >= SETTLING_SECONDS

    def _age(self) -> float:
        """Seconds since the last change to any of the files, by the clocks of this machine and the file system."""
        changes = [mark[-1] for mark in self._marks if mark]
        return time.time() - max(changes, default=0) / 1e9

    def _read(self) -> tuple[list[bytes], T]:
        contents = []
        for setting, path in self._files.items():
            try:
                contents.append(_content(path))
            except OSError as error:
                raise Unusable(f"{setting}: cannot read {path}: {error.strerror}") from error
        return contents, self._parse(contents)

    def _look(self) -> list[tuple[int, ...] | None]:
        return [_mark(path) for path in self._files.values()]

    @property
    def _names(self) -> str:
        return ", ".join(map(str, self._files.values()))


def _content(path: Path) -> bytes:
    """The content of a regular file. OSError for any other, which could block for ever, and for one too large."""
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
    """Changes whenever the file does, its permissions included; the time of the last change comes last."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
