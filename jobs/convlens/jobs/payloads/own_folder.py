"""A folder that no other user may enter, used by a descriptor rather than by its path.

If the path is moved or replaced, or others put links into the folder, still nothing elsewhere is read, written or
deleted: names are relative to the descriptor, and symbolic links are not followed. Knows nothing of the contents.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

log = logging.getLogger(__name__)

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OTHERS: Final = 0o077
_SHARED: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - those that are refused
"""Folders of the whole machine, refused also where they are empty and this user is root."""


class UnusableFolder(RuntimeError):
    """A folder that cannot be used; the message says which one, why, and what to do."""


class OwnFolder:
    """An open folder, closed with the last reference to this object. `fd` is for the dir_fd arguments of os."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        weakref.finalize(self, os.close, fd)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder at `path`, made if it does not exist. Raises UnusableFolder where it is not this user's."""
        try:
            if path.is_symlink():
                raise UnusableFolder(f"{path} is a symbolic link; give the folder that it leads to")
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = cls(path, os.open(path, _FLAGS))
            owner = os.fstat(folder.fd).st_uid
        except OSError as error:
            why = "is no folder" if error.errno == errno.EEXIST else f"cannot be used: {error.strerror}"
            raise UnusableFolder(f"{path} {why}; give a folder that this user may write to") from error
        if owner != os.geteuid():
            raise UnusableFolder(
                f"{path} belongs to another user (uid {owner}); give a folder of the user that runs the service "
                f"(uid {os.geteuid()}), or one that does not exist yet: it is made"
            )
        if str(path.resolve()) in _SHARED:
            raise UnusableFolder(f"{path} is for every user of this machine; give a folder in it instead")
        return folder

    def subfolder(self, name: str) -> OwnFolder:
        """Open the folder `name` in this one, made if it does not exist. Raises OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.fd)
        folder = OwnFolder(self.path / name, os.open(name, _FLAGS, dir_fd=self.fd))
        folder.close_to_others()
        return folder

    def close_to_others(self) -> None:
        """Remove the permissions of other users, and log it where they had some. Raises OSError."""
        mode = stat.S_IMODE(os.fstat(self.fd).st_mode)
        if mode & _OTHERS:
            os.fchmod(self.fd, 0o700)
            log.warning("%s was open to other users (mode %o): it is 700 now", self.path, mode)

    def is_replaced(self) -> bool:
        """Return whether another folder has this one's path: it was moved, or something is mounted over it."""
        try:
            at_path, own = os.stat(self.path, follow_symlinks=False), os.fstat(self.fd)
        except OSError:
            return False
        return stat.S_ISDIR(at_path.st_mode) and (at_path.st_dev, at_path.st_ino) != (own.st_dev, own.st_ino)

    @contextlib.contextmanager
    def entries(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """List the folder within a `with`; an empty list where it was removed."""
        try:
            file = os.open(".", _FLAGS, dir_fd=self.fd)  # a descriptor that threads share has one position for all
        except FileNotFoundError:
            yield iter(())
            return
        try:
            with os.scandir(file) as entries:
                yield entries
        finally:
            os.close(file)

    def create(self, name: str) -> int:
        """Open a new file for writing, in the place of one that has its name. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            return os.open(name, flags, 0o600, dir_fd=self.fd)
        except FileExistsError:
            os.unlink(name, dir_fd=self.fd)
            return os.open(name, flags, 0o600, dir_fd=self.fd)

    def is_removed(self) -> bool:
        """Return whether the folder was deleted; another of the same path is not this one."""
        return os.fstat(self.fd).st_nlink == 0


def is_own_file(status: os.stat_result) -> bool:
    """Return whether a file is as this service makes them: this user's, closed to others, without a second link."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and status.st_nlink == 1
        and not status.st_mode & _OTHERS
    )
