"""Files that nobody needs any more, kept for a while to be written again.

Pages that are there already are filled several times faster than new ones are made (docs/plane.md). Processes that
share the folder share its spares; a file is taken by renaming it, so one of them gets it. What others gave is seen when
the folder is looked at, which is seldom.
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

FOLDER: Final = ".spares"
"""Their folder, in that of the payloads."""
MOST_BYTES: Final = 128 << 20
MOST_FILES: Final = 1024
"""Of all spares together; what comes beyond them is deleted."""
SHARE: Final = 8
"""A process gives an eighth of them, or one file, between two looks."""
SECONDS: Final = 60.0
"""How long a spare is kept."""
LOOK_SECONDS: Final = 0.02
"""How soon the folder is looked at again after it had nothing that fits, or no room."""

_NAME: Final = re.compile(r"\d{1,19}-[0-9a-f]{32}-\d+")


class Spares:
    """The spares of a folder of payloads, for any thread. A spare's name begins with its size."""

    def __init__(self, payloads: OwnFolder) -> None:
        """Makes their folder if it is not there. OSError."""
        self._payloads = payloads
        self._folder = payloads.subfolder(FOLDER)
        self._process = uuid.uuid4().hex
        self._numbers = itertools.count()  # one that threads may share
        self._seen: dict[tuple[int, int], list[str]] = {}
        self._room = 0
        self._files_left = 0
        self._looks_again = -math.inf

    def give(self, names: Iterable[str]) -> None:
        """Takes payloads' files away from where they are; names without one are no error."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._payloads.fd, follow_symlinks=False)
                size = status.st_size if is_own_file(status) else 0
                if not (size and self._has_room(size) and self._keep(name, size)):
                    os.unlink(name, dir_fd=self._payloads.fd)

    def _keep(self, name: str, size: int) -> bool:
        """Makes a file a spare; False where that fails, as it does when the spares' folder was removed."""
        spare = f"{size}-{self._process}-{next(self._numbers)}"
        try:
            os.rename(name, spare, src_dir_fd=self._payloads.fd, dst_dir_fd=self._folder.fd)
        except OSError:
            return False
        self._seen.setdefault(_kind(size), []).append(spare)
        self._room -= size
        self._files_left -= 1
        return True

    def take(self, size: int, name: str) -> tuple[int, int] | None:
        """Makes a spare of about `size` bytes the payload's file `name`; it opened for writing, and its old size."""
        if not self._seen.get(_kind(size)):
            self._look(size)
        fitting = self._seen.get(_kind(size), [])
        while fitting:
            with contextlib.suppress(OSError, IndexError):  # another was faster, or it is no file
                spare = fitting.pop()
                os.rename(spare, name, src_dir_fd=self._folder.fd, dst_dir_fd=self._payloads.fd)
                self._room += _size(spare)
                self._files_left += 1
                file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=self._payloads.fd)
                status = os.fstat(file)
                if is_own_file(status):
                    return file, status.st_size
                os.close(file)  # such as one that a backup has linked, which is not to be written to
                os.unlink(name, dir_fd=self._payloads.fd)
        return None

    def _has_room(self, size: int) -> bool:
        if size > self._room or self._files_left < 1:
            self._look(size)
        return size <= self._room and self._files_left > 0

    def _look(self, size: int) -> None:
        """Sees what there is, unless it looked a moment ago and there was nothing for such a `size`."""
        now = time.monotonic()
        if now < self._looks_again:
            return
        names = self._names()
        seen: dict[tuple[int, int], list[str]] = {}
        for name in names:
            seen.setdefault(_kind(_size(name)), []).append(name)
        self._seen = seen
        self._room = min(MOST_BYTES - sum(map(_size, names)), max(MOST_BYTES // SHARE, size))
        self._files_left = min(MOST_FILES - len(names), MOST_FILES // SHARE)
        if size > self._room or self._files_left < 1 or not seen.get(_kind(size)):
            self._looks_again = now + LOOK_SECONDS

    def _names(self) -> list[str]:
        with self._folder.entries() as entries:
            return [entry.name for entry in entries if _NAME.fullmatch(entry.name)]

    def sweep(self) -> None:
        """Deletes those that nobody took in time."""
        before = time.time() - SECONDS
        with self._folder.entries() as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if _NAME.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_ctime < before:
                        os.unlink(entry.name, dir_fd=self._folder.fd)

    def clear(self) -> int:
        """Deletes all of them; how many there were."""
        names = self._names()
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder.fd)
        return len(names)


def _size(name: str) -> int:
    return int(name.split("-", 1)[0])


def _kind(size: int) -> tuple[int, int]:
    """Equal for sizes that differ by less than a quarter."""
    octave = size.bit_length()
    return octave, size << 2 >> max(0, octave - 1)
