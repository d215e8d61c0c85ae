"""Payloads as files of one folder that server and workers share.

The folder belongs to the service: it was empty when it was first used, and only files that the service made are ever
deleted. A file's mtime is when it expires. Readers see a whole file or none.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from convlens.jobs.payloads import file_pool
from convlens.jobs.payloads.file_pool import FilePool
from convlens.jobs.payloads.own_folder import OwnFolder, UnusableFolder
from convlens.jobs.payloads.payload_files import TEMPORARY, delete_abandoned, list_files, unlink, write_file
from convlens.jobs.payloads.reclaimer import FULL, Evict, Reclaimer, valid_names
from convlens.jobs.payloads.store import ByteRange, Data, PayloadStore, StoreFull, in_batches, is_payload_name

log = logging.getLogger(__name__)

MOUNTS: Final = Path("/proc/self/mounts")
"""Linux' table of mounted file systems."""
_GONE: Final = (errno.ENOENT, errno.ELOOP, errno.EISDIR)

T = TypeVar("T")


class _OpenFolder(NamedTuple):
    folder: OwnFolder
    pool: FilePool
    reclaimer: Reclaimer

    def create(self, name: str, size: int) -> int:
        """Open a new temporary file for a payload of `size` bytes or more, a pooled one where one fits."""
        temporary = name + TEMPORARY
        file = self.pool.take(size, temporary)
        return self.reclaimer.run(size, lambda: self.folder.create(temporary)) if file is None else file


class DirectoryPayloads(PayloadStore):
    """A store in `folder`; payloads expire by `clock`, seconds since the epoch. Raises UnusableFolder.

    In a full folder `evict` says which payloads can be done without; see Reclaimer.
    """

    def __init__(self, folder: Path, clock: Callable[[], float], evict: Evict = lambda _: ()) -> None:
        self._path = folder
        self._clock = clock
        self._evict = evict
        self._reopening = threading.Lock()
        self._logged = ""
        """Why what replaced the folder at its path is not used, as it was logged last."""
        self._opened = self._open()
        self.may_block = not _is_in_memory(folder)

    def put(
        self,
        name: str,
        parts: Iterable[Data],
        ttl: float,
        *,
        reserved: bool = True,  # noqa: ARG002 - a folder has no soft limit
    ) -> int:
        """See PayloadStore. In a full folder, what can be done without is deleted first."""
        _check_name(name)
        if self._opened.folder.is_replaced():
            self._reopen(self._opened)
        batches = in_batches(parts)
        first = next(batches, [])
        size = sum(map(len, first))
        opened = self._opened
        try:
            try:
                file = opened.create(name, size)
            except FileNotFoundError:
                if not self._reopen(opened):
                    raise
                opened = self._opened
                file = opened.create(name, size)
            every = itertools.chain([first], batches)
            with_space = functools.partial(opened.reclaimer.run, size)
            return write_file(opened.folder, name, file, every, lambda: self._clock() + ttl, with_space)
        except OSError as error:
            raise StoreFull(f"cannot write a payload to {self._path}: {error.strerror}") from error

    def read_many(self, ranges: Sequence[ByteRange]) -> list[Data | None]:
        """See PayloadStore. Adjacent ranges are read by one call to the system."""
        values: list[Data | None] = []
        for run in _adjacent(ranges):
            name, first, _ = run[0]
            data = self._read(name, first, sum(length for _, _, length in run))
            if data is None:
                values += [None] * len(run)
            else:
                values += [memoryview(data)[offset - first : offset - first + length] for _, offset, length in run]
        return values

    def _read(self, name: str, offset: int, length: int) -> bytes | None:
        """Return the bytes of a range; None where they are not all there."""
        data = self._with_file(name, lambda file: os.pread(file, length, offset))
        return data if data is not None and len(data) == length else None

    def _with_file(self, name: str, read: Callable[[int], T]) -> T | None:
        """Return what `read` returns of a payload's descriptor; None where there is no such payload."""
        _check_name(name)
        opened = self._opened
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=opened.folder.fd)
            try:
                value = read(file)
                # a file deleted meanwhile may already hold another payload, of which `value` would be
                os.stat(name, dir_fd=opened.folder.fd, follow_symlinks=False)
            finally:
                os.close(file)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return self._with_file(name, read) if self._reopen(opened) else None
        return value

    def delete(self, names: Sequence[str]) -> None:
        """See PayloadStore. What cannot be deleted now is deleted by sweep() once it has expired."""
        try:
            self._opened.pool.give(valid_names(names))
        except OSError as error:
            log.warning("payloads=%s are not deleted now: %s", ",".join(names), error.strerror)

    def sweep(self) -> None:
        """Delete expired payloads, what killed writers left, and pooled files that were not used in time."""
        folder, pool, _ = self._opened
        now = self._clock()
        for name, status in list_files(folder):
            if name.endswith(TEMPORARY):
                delete_abandoned(folder, name, status)
            elif status.st_mtime < now:
                unlink(folder, name)
        pool.sweep()

    def _reopen(self, opened: _OpenFolder) -> bool:
        """Open the folder anew where it was removed or replaced; return False where it was not, or that fails."""
        with self._reopening:
            if self._opened is opened:
                if not (opened.folder.is_removed() or opened.folder.is_replaced()):
                    return False
                try:
                    self._opened = self._open()
                except UnusableFolder as error:
                    if str(error) != self._logged:
                        log.error("the folder in use has another's path now, and stays in use: %s", error)  # noqa: TRY400
                    self._logged = str(error)
                    return False
                log.error("%s was removed or replaced, and with it all payloads; what is there now is used", self._path)
        return True

    def _open(self) -> _OpenFolder:
        """Open the folder, and check that payloads can be written to it. Raises UnusableFolder."""
        folder = OwnFolder.open(self._path)
        check_contents(folder)
        try:
            folder.close_to_others()
            check_contents(folder)  # again: others could add files until now
            pool = FilePool(folder)
            _probe(folder)
        except OSError as error:
            raise UnusableFolder(
                f"{self._path} cannot hold payloads: {error.strerror}; give a folder that this user may write to, on a "
                "file system with locks and file times"
            ) from error
        return _OpenFolder(folder, pool, Reclaimer(folder, pool, self._evict))


def check_contents(folder: OwnFolder) -> None:
    """Raise UnusableFolder for a folder that is neither empty nor was used for payloads: that has a file pool."""
    with folder.entries() as entries:
        names = sorted(entry.name for entry in entries if entry.name != "lost+found")
    if not names:
        return
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(file_pool.FOLDER, dir_fd=folder.fd, follow_symlinks=False).st_mode):
            return
    some = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    raise UnusableFolder(
        f"{folder.path} holds other things than payloads ({some}), and payloads need a folder of their own; give one "
        "that is empty or does not exist yet"
    )


def _probe(folder: OwnFolder) -> None:
    """Write a payload and delete it. Raises OSError for what the file system cannot do, but not where it is full."""
    name = uuid.uuid4().hex
    try:
        write_file(folder, name, folder.create(name + TEMPORARY), [[memoryview(b"a probe")]], time.time)
    except OSError as error:
        if error.errno not in FULL:
            raise
    unlink(folder, name)


def _check_name(name: str) -> None:
    if not is_payload_name(name):
        raise ValueError(f"{name!r} is no payload's name")


def _is_in_memory(folder: Path) -> bool:
    """Return whether a folder is on a tmpfs, as far as the system says."""
    if not MOUNTS.exists():
        return False
    types = {mount_point: kind for _, mount_point, kind, *_ in map(str.split, MOUNTS.read_text().splitlines())}
    path = folder.resolve()
    return next((types[str(above)] for above in (path, *path.parents) if str(above) in types), "") == "tmpfs"


def _adjacent(ranges: Sequence[ByteRange]) -> Iterator[list[ByteRange]]:
    """Yield the ranges in order, those together of which each begins where the one before ends."""
    run: list[ByteRange] = []
    for byte_range in ranges:
        if run and byte_range[:2] != (run[-1][0], run[-1][1] + run[-1][2]):
            yield run
            run = []
        run.append(byte_range)
    if run:
        yield run
