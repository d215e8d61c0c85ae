"""The files of a directory store: written under a temporary name, renamed once they are whole, listed, deleted.

A writer locks its file until the rename. So an unfinished file without a lock was left by a killed writer.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from convlens.jobs.payloads.own_folder import OwnFolder, is_own_file
from convlens.jobs.payloads.store import is_payload_name

TEMPORARY: Final = ".part"
"""What the name of an unfinished file ends in."""
UNLOCKED_SECONDS: Final = 2.0
"""The age of a file in seconds from which its writer must have locked it."""


def write_file(
    folder: OwnFolder,
    name: str,
    file: int,
    batches: Iterable[list[memoryview]],
    expiry: Callable[[], float],
    with_space: Callable[[Callable[[], int]], int] = lambda step: step(),
) -> int:
    """Write a payload to its temporary file, of which `file` is the descriptor, rename it, and return its size.

    `with_space` calls each step that takes space, again where it has made some. `expiry` is called last and says when
    the payload expires, in seconds since the epoch. Raises OSError and leaves nothing then.
    """
    temporary = name + TEMPORARY
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = 0
        for batch in batches:
            views = deque(batch)
            while views:
                written = with_space(functools.partial(os.writev, file, views))
                size += written
                while views and written >= len(views[0]):
                    written -= len(views.popleft())
                if written:
                    views[0] = views[0][written:]
        os.ftruncate(file, size)  # a pooled file may have been longer
        os.utime(file, (expiry(),) * 2)
        os.rename(temporary, name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    except BaseException:
        unlink(folder, temporary)
        raise
    finally:
        os.close(file)
    return size


def list_files(folder: OwnFolder) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of the payloads' files, finished or not, that this service made."""
    with folder.entries() as entries:
        for entry in entries:
            if is_payload_name(entry.name.removesuffix(TEMPORARY)):
                with contextlib.suppress(FileNotFoundError):  # another process has deleted it
                    status = entry.stat(follow_symlinks=False)
                    if is_own_file(status):
                        yield entry.name, status


def delete_abandoned(folder: OwnFolder, name: str, status: os.stat_result) -> bool:
    """Delete an unfinished file unless its writer lives, and return whether that was so."""
    if status.st_ctime + UNLOCKED_SECONDS > time.time():
        return False
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=folder.fd)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=folder.fd)
        finally:
            os.close(file)
        return True
    return False


def unlink(folder: OwnFolder, name: str) -> None:
    """Delete a file; one that does not exist is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder.fd)
