"""Space in a full folder: what can be done without is deleted, and the write that failed is repeated."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from convlens.jobs.payloads.file_pool import FilePool
from convlens.jobs.payloads.own_folder import OwnFolder
from convlens.jobs.payloads.payload_files import TEMPORARY, delete_abandoned, list_files, unlink
from convlens.jobs.payloads.store import BATCH_BYTES, is_payload_name

log = logging.getLogger(__name__)

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
TRIES: Final = 16
"""How often space is reclaimed for one write; other writers may use it up in the meantime."""

Evict = Callable[[int], Sequence[str]]
"""Forgets cached results of about as many bytes, and returns the names of their payloads, which are then deleted."""

T = TypeVar("T")


class Reclaimer:
    """Reclaims space of a folder of payloads for all threads of this process.

    `evict` is called under a lock that processes share, and what it returns is deleted before that is released. So a
    process that finds nothing to evict knows that whatever another one evicted is deleted by then.
    """

    def __init__(self, folder: OwnFolder, pool: FilePool, evict: Evict) -> None:
        self._folder = folder
        self._pool = pool
        self._evict = evict
        self._lock = threading.Lock()
        self._reclaimed = 0
        """How often anything was reclaimed."""

    def run(self, size: int, step: Callable[[], T]) -> T:
        """Return what `step` returns; while the folder is full, reclaim about `size` bytes and call it again."""
        is_reclaimed = True
        for _ in range(TRIES):
            seen = self._reclaimed
            try:
                return step()
            except OSError as error:
                if error.errno not in FULL or not is_reclaimed:
                    raise
                # it is called again also where there was nothing: another process may have reclaimed
                is_reclaimed = self._reclaim(size, seen)
        raise OSError(errno.ENOSPC, "other writers use up all space that is reclaimed")

    def _reclaim(self, size: int, seen: int) -> bool:
        """Delete pooled and abandoned files, else evict; return False where there was nothing.

        Do nothing where another thread has reclaimed since the count was `seen`.
        """
        folder = self._folder
        with self._lock, _locked(folder):
            if self._reclaimed != seen:
                return True
            unfinished = [(name, status) for name, status in list_files(folder) if name.endswith(TEMPORARY)]
            count = self._pool.clear() + sum(delete_abandoned(folder, *file) for file in unfinished)
            if not count:
                names = self._evict(max(size, BATCH_BYTES))
                log.warning("%s is full: %d cached results and unneeded payloads are deleted", folder.path, len(names))
                for name in valid_names(names):
                    unlink(folder, name)
                count = len(names)
            self._reclaimed += bool(count)
        return count > 0


def valid_names(names: Sequence[str]) -> list[str]:
    """Return those that are payloads' names, and log others: nothing of ours writes them to Redis."""
    valid = [name for name in names if is_payload_name(name)]
    if len(valid) < len(names):
        log.error("not deleted, since they are no payloads' names: %s", sorted({*names}.difference(valid)))
    return valid


@contextlib.contextmanager
def _locked(folder: OwnFolder) -> Iterator[None]:
    """Hold the folder's lock, which processes share; none where the file system cannot lock folders, as NFS."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fcntl.flock(folder.fd, fcntl.LOCK_EX)
            stack.callback(fcntl.flock, folder.fd, fcntl.LOCK_UN)
        yield
