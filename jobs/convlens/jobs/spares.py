"""Files that nobody needs any more, kept for a while to be written again.

Pages that are there already are filled several times faster than new ones are made (docs/plane.md). Processes that
share the folder share its spares; a file is taken by renaming it, so one of them gets it. What others gave is seen when
the folder is looked at, which is seldom: it may hold a thousand names.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 128 << 20
"""Of all spares together; what comes beyond them is deleted."""
SHARE: Final = 8
"""A process gives an eighth of them, or one file, between two looks."""
SECONDS: Final = 60.0
"""How long a spare is kept."""
LOOK_SECONDS: Final = 0.02
"""How soon the folder is looked at again after it had nothing that fits, or no room."""


class Spares:
    """The spares of one folder, for any thread. A spare's name begins with its size."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder)
        self._process = uuid.uuid4().hex
        self._numbers = itertools.count()  # one that threads may share
        self._seen: dict[tuple[int, int], list[str]] = {}
        self._room = 0
        self._looks_again = -math.inf
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def give(self, paths: Iterable[str]) -> None:
        """Takes files away from where they are; paths without one are no error."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                size = os.stat(path).st_size
                if size and self._has_room(size):
                    name = f"{size}-{self._process}-{next(self._numbers)}"
                    os.rename(path, f"{self._folder}/{name}")
                    self._seen.setdefault(_kind(size), []).append(name)
                    self._room -= size
                else:
                    os.unlink(path)

    def take(self, size: int, path: str) -> int:
        """Makes a spare of about `size` bytes the file at `path`, its old bytes in it: how many; 0 for no spare."""
        if not self._seen.get(_kind(size)):
            self._look(size)
        fitting = self._seen.get(_kind(size), [])
        while fitting:
            with contextlib.suppress(FileNotFoundError, IndexError):  # another was faster
                name = fitting.pop()
                os.rename(f"{self._folder}/{name}", path)
                return _size(name)
        return 0

    def _has_room(self, size: int) -> bool:
        if size > self._room:
            self._look(size)
        return size <= self._room

    def _look(self, size: int) -> None:
        """Sees what there is, unless it looked a moment ago and there was nothing for such a `size`."""
        now = time.monotonic()
        if now < self._looks_again:
            return
        names = os.listdir(self._folder)
        seen: dict[tuple[int, int], list[str]] = {}
        for name in names:
            seen.setdefault(_kind(_size(name)), []).append(name)
        self._seen = seen
        self._room = min(MOST_BYTES - sum(map(_size, names)), max(MOST_BYTES // SHARE, size))
        if size > self._room or not seen.get(_kind(size)):
            self._looks_again = now + LOOK_SECONDS

    def sweep(self) -> None:
        """Deletes those that nobody took in time."""
        before = time.time() - SECONDS
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_ctime < before:
                        os.unlink(entry.path)


def _size(name: str) -> int:
    return int(name.split("-", 1)[0])


def _kind(size: int) -> tuple[int, int]:
    """Equal for sizes that differ by less than a quarter."""
    octave = size.bit_length()
    return octave, size << 2 >> max(0, octave - 1)
