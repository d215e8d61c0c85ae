"""Files that may be replaced while the server runs: tokens, certificates. Knows nothing of what they hold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Unusable(Exception):
    """A file that cannot be read, or does not hold what it must: which, and why, and never what it holds."""


class Watched(Generic[T]):
    """What files hold, read again once one of them has changed.

    Raises Unusable when they cannot be used at first. Later that is logged, and what was read last stays in force.
    Files are best replaced by renaming new ones over them; one read half-written is read again when it is whole.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        self._paths = paths
        self._read = read
        self._seen = self._look()
        self._value = self._attempt()

    @property
    def value(self) -> T:
        """What the files hold now. Safe in any thread; a few microseconds when nothing has changed."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            names = ", ".join(map(str, self._paths))
            try:
                self._value = self._attempt()
                log.info("files=%s read again", names)
            except Unusable as error:
                log.error("%s; what was read last from %s stays in force", error, names)  # noqa: TRY400 - says it all
        return self._value

    def _attempt(self) -> T:
        try:
            return self._read()
        except OSError as error:
            raise Unusable(f"cannot read {error.filename}: {error.strerror}") from error

    def _look(self) -> list[tuple[int, ...] | None]:
        return [_mark(path) for path in self._paths]


def _mark(path: Path) -> tuple[int, ...] | None:
    """Changes whenever the file does, its permissions included."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
