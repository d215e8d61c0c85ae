"""Files that nobody needs any more, kept for a while to be written again.

Pages that are there already are filled several times faster than new ones are made (docs/plane.md). Processes that
share the folder share its spares; a file is taken by renaming it, so one of them gets it.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 128 << 20
"""Of all spares together; what comes beyond them is deleted."""
SECONDS: Final = 60.0
"""How long a spare is kept."""


class Spares:
    """The spares of one folder. A spare's name begins with its size."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder)
        self._seen: dict[int, list[str]] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def give(self, paths: Iterable[str]) -> None:
        """Takes files away from where they are; paths without one are no error."""
        held = sum(map(_size, os.listdir(self._folder)))
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                size = os.stat(path).st_size
                if size and held + size <= MOST_BYTES:
                    os.rename(path, f"{self._folder}/{size}-{uuid.uuid4().hex}")
                    held += size
                else:
                    os.unlink(path)

    def take(self, size: int, path: str) -> bool:
        """Makes a spare of about `size` bytes the file at `path`, its old bytes in it. False when there is none."""
        fitting = self._seen.get(size.bit_length()) or self._look(size)
        while fitting:
            with contextlib.suppress(FileNotFoundError):  # another was faster
                os.rename(f"{self._folder}/{fitting.pop()}", path)
                return True
        return False

    def _look(self, size: int) -> list[str]:
        self._seen = {}
        for name in os.listdir(self._folder):
            self._seen.setdefault(_size(name).bit_length(), []).append(name)
        return self._seen.get(size.bit_length(), [])

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
