"""A pool of files that nobody needs any more, to be overwritten: their pages are filled several times faster than new
ones are allocated.

Processes that share the folder share its pool. A file is taken by renaming it, so that one process alone gets it. What
other processes gave is seen when the pool's folder is listed, which is seldom.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import time
import uuid
from collections.abc import Iterable
from typing import Final

from convlens.jobs.payloads.own_folder import OwnFolder, is_own_file
from convlens.jobs.payloads.store import BATCH_BYTES

FOLDER: Final = ".spares"
"""The pool's folder, in that of the payloads."""
MAX_BYTES: Final = 128 << 20
MAX_FILES: Final = 1024
"""Of the whole pool; files beyond are deleted."""
SHARE: Final = 8
"""Between two listings a process gives an eighth of these, or one file."""
MAX_AGE: Final = 60.0
"""Seconds that a file stays in the pool."""
LISTING_SECONDS: Final = 0.02
"""Seconds until the folder is listed again after a listing that did not help."""

_NAME: Final = re.compile(r"\d{1,19}-[0-9a-f]{32}-\d+")
"""Size, process, and a number that the process has not used before."""


class FilePool:
    """The pool of a folder of payloads. Thread-safe."""

    def __init__(self, payloads: OwnFolder) -> None:
        """Open the pool's folder, made if it does not exist. Raises OSError."""
        self._payloads = payloads
        self._folder = payloads.subfolder(FOLDER)
        self._process = uuid.uuid4().hex
        self._numbers = itertools.count()  # threads may share one
        self._listed: dict[tuple[int, int], list[str]] = {}
        """The files' names by size class."""
        self._bytes_left = 0
        self._files_left = 0
        """What this process may still give."""
        self._next_listing = -math.inf

    def give(self, names: Iterable[str]) -> None:
        """Move payloads' files into the pool, or delete them where it is full; names without a file are no error."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._payloads.fd, follow_symlinks=False)
                size = status.st_size if is_own_file(status) else 0
                if not (size and self._has_space(size) and self._keep(name, size)):
                    os.unlink(name, dir_fd=self._payloads.fd)

    def _keep(self, name: str, size: int) -> bool:
        """Move a file into the pool; return False where that fails, as when the pool's folder was removed."""
        pooled = f"{size}-{self._process}-{next(self._numbers)}"
        try:
            os.rename(name, pooled, src_dir_fd=self._payloads.fd, dst_dir_fd=self._folder.fd)
        except OSError:
            return False
        self._listed.setdefault(_size_class(size), []).append(pooled)
        self._bytes_left -= size
        self._files_left -= 1
        return True

    def take(self, size: int, name: str) -> int | None:
        """Rename a pooled file of about `size` bytes to `name`, and open it for writing; None where there is none."""
        if not self._listed.get(_size_class(size)):
            self._list(size)
        fitting = self._listed.get(_size_class(size), [])
        while fitting:
            with contextlib.suppress(OSError, IndexError):  # another process or thread took it, or it is no file
                pooled = fitting.pop()
                os.rename(pooled, name, src_dir_fd=self._folder.fd, dst_dir_fd=self._payloads.fd)
                self._bytes_left += _size(pooled)
                self._files_left += 1
                file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=self._payloads.fd)
                if is_own_file(os.fstat(file)):
                    return file
                os.close(file)  # such as one with a second, hard link by a backup, which must not change
                os.unlink(name, dir_fd=self._payloads.fd)
        return None

    def _has_space(self, size: int) -> bool:
        if size > self._bytes_left or self._files_left < 1:
            self._list(size)
        return size <= self._bytes_left and self._files_left > 0

    def _list(self, size: int) -> None:
        """List the folder, unless that was done a moment ago without help for such a `size`."""
        now = time.monotonic()
        if now < self._next_listing:
            return
        names = self._names()
        listed: dict[tuple[int, int], list[str]] = {}
        for name in names:
            listed.setdefault(_size_class(_size(name)), []).append(name)
        self._listed = listed
        self._bytes_left = min(MAX_BYTES - sum(map(_size, names)), max(MAX_BYTES // SHARE, size))
        self._files_left = min(MAX_FILES - len(names), MAX_FILES // SHARE)
        if size > self._bytes_left or self._files_left < 1 or not listed.get(_size_class(size)):
            self._next_listing = now + LISTING_SECONDS

    def _names(self) -> list[str]:
        with self._folder.entries() as entries:
            return [entry.name for entry in entries if _NAME.fullmatch(entry.name)]

    def sweep(self) -> None:
        """Delete the files that were not taken within MAX_AGE."""
        oldest = time.time() - MAX_AGE
        with self._folder.entries() as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if _NAME.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_ctime < oldest:
                        os.unlink(entry.name, dir_fd=self._folder.fd)

    def clear(self) -> int:
        """Delete all files, and return how many there were."""
        names = self._names()
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder.fd)
        return len(names)


def _size(name: str) -> int:
    return int(name.split("-", 1)[0])


def _size_class(size: int) -> tuple[int, int]:
    """Return the same for sizes that differ by less than a quarter, and for all from BATCH_BYTES on.

    Of a larger payload no more than its first batch is known when its file is taken.
    """
    size = min(size, BATCH_BYTES)
    octave = size.bit_length()
    return octave, size << 2 >> max(0, octave - 1)
