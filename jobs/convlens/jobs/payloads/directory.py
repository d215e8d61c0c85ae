"""Payloads as files of one folder that server and workers share.

The folder belongs to the service: it was empty when it was first used, and only files that the service made are ever
deleted. A file's mtime is when it expires. Readers see a whole file or none: it gets its name once it is written, and
its writer holds a lock on it until then, so that what a killed writer left is known at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import redis

from convlens.jobs.payloads import file_pool
from convlens.jobs.payloads.file_pool import Spares
from convlens.jobs.payloads.own_folder import OwnFolder, UnusableFolder, is_own_file
from convlens.jobs.payloads.store import PART_BYTES, Data, PayloadStore, Place, RedisPayloads, StoreFull, there
from convlens.jobs.runtime.redis_client import RedisClock

log = logging.getLogger(__name__)

MOUNTS: Final = Path("/proc/self/mounts")
"""Where the system tells which file system is where."""
AT_ONCE: Final = 16 << 20
"""Bytes of cached results that are dropped together from a full folder, at least."""
TRIES: Final = 16
"""How many times room is made for one payload; others may take it in the meantime."""
UNLOCKED_SECONDS: Final = 2.0
"""A file is younger than this when its writer has not locked it yet."""

_NAME: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{24}-[0-9A-Za-z-]{1,128}")
"""A pack of images, and a result: the secret of a claim and its job."""
_PART: Final = ".part"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_GONE: Final = (errno.ENOENT, errno.ELOOP, errno.EISDIR)
_IOV_MAX: Final = os.sysconf("SC_IOV_MAX")

T = TypeVar("T")


class _Opened(NamedTuple):
    folder: OwnFolder
    spares: Spares


class DirectoryPayloads:
    """Payloads in `folder`, expiring by `clock`. Raises UnusableFolder.

    When the folder is full, `drop_cached(bytes)` forgets results that can be done without and returns their names.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], float], drop_cached: Callable[[int], Sequence[str]] = lambda _: ()
    ) -> None:
        self._path = folder
        self._clock = clock
        self._drop_cached = drop_cached
        self._opening = threading.Lock()
        self._making_room = threading.Lock()
        self._rooms_made = 0
        self._refused = ""
        """Why what took the folder's path is not used."""
        self._opened = self._open()
        self.waits = not _in_memory(folder)

    def put(
        self,
        name: str,
        body: Iterable[Data],
        size: int,
        ttl: float,
        end: Callable[[], Data] = bytes,
        *,
        reserved: bool = True,  # noqa: ARG002 - a folder's room is everybody's
    ) -> int:
        """See PayloadStore. In a full folder, what can be done without goes first."""
        _check(name)
        if self._opened.folder.is_replaced():
            self._renewed(self._opened)
        try:
            try:
                writing = self._create(self._opened, name, size)
            except FileNotFoundError:
                if not self._renewed(self._opened):
                    raise
                writing = self._create(self._opened, name, size)
            return writing.write(body, end, lambda: self._clock() + ttl)
        except OSError as error:
            raise StoreFull(f"cannot write a payload to {self._path}: {error.strerror}") from error

    def _create(self, opened: _Opened, name: str, size: int) -> _Writing:
        """The file of a payload of about `size` bytes."""

        def with_room(action: Callable[[], T]) -> T:
            """What `action` gives; tried again while there is something that a full folder can do without."""
            made = True
            for _ in range(TRIES):
                rooms = self._rooms_made
                try:
                    return action()
                except OSError as error:
                    if error.errno not in _FULL or not made:
                        raise
                    made = self._make_room(opened, size, rooms)  # tried again also after none: others may have made it
            raise OSError(errno.ENOSPC, "others take what room is made")

        return _Writing(opened, name, size, with_room)

    def read(self, name: str, offset: int, length: int) -> Data:
        """See PayloadStore."""
        return there(self._read(name, offset, length), name)

    def read_many(self, wanted: Sequence[Place]) -> list[Data | None]:
        """See PayloadStore. What lies side by side is read in one piece."""
        found: list[Data | None] = []
        for run in _runs(wanted):
            name, offset, _ = run[0]
            data = self._read(name, offset, sum(length for _, _, length in run))
            if data is None:
                found += [None] * len(run)
            else:
                found += [memoryview(data)[start - offset : start - offset + length] for _, start, length in run]
        return found

    def _read(self, name: str, offset: int, length: int) -> bytes | None:
        data = self._seen(name, lambda file: os.pread(file, length, offset))
        return data if data is not None and len(data) == length else None

    def _seen(self, name: str, look: Callable[[int], T]) -> T | None:
        """What is seen of a payload's file; None when it is gone."""
        _check(name)
        opened = self._opened
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=opened.folder.fd)
            try:
                found = look(file)
                # a file that is gone by now may have been written again meanwhile
                os.stat(name, dir_fd=opened.folder.fd, follow_symlinks=False)
            finally:
                os.close(file)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return self._seen(name, look) if self._renewed(opened) else None
        return found

    def delete(self, names: Sequence[str]) -> None:
        """See PayloadStore. What cannot be deleted is left to sweep(), once its time is over."""
        try:
            self._opened.spares.give(_readable(names))
        except OSError as error:
            log.warning("payloads=%s are not deleted now: %s", ",".join(names), error.strerror)

    def sweep(self) -> None:
        """Deletes the payloads whose time is over, what killed writers left, and spares that nobody took in time."""
        folder, spare_files = self._opened
        now = self._clock()
        for name, status in _files(folder):
            if name.endswith(_PART):
                _drop_abandoned(folder, name, status)
            elif status.st_mtime < now:
                _unlink(folder, name)
        spare_files.sweep()

    def _make_room(self, opened: _Opened, size: int, rooms: int) -> bool:
        """Deletes what can be done without, spares first; False where there was nothing.

        Nothing is deleted where another thread did so since there were `rooms` made. Processes do it one after another,
        so that whoever finds nothing left knows that what the one before dropped is deleted by now.
        """
        folder, spare_files = opened
        with self._making_room, _alone(folder):
            if self._rooms_made != rooms:
                return True
            parts = ((name, status) for name, status in _files(folder) if name.endswith(_PART))
            found = spare_files.clear() + sum(_drop_abandoned(folder, *part) for part in parts)
            if not found:
                names = self._drop_cached(max(size, AT_ONCE))
                log.warning("%s is full: %d cached results and payloads not needed any more go", self._path, len(names))
                for name in _readable(names):
                    _unlink(folder, name)
                found = len(names)
            self._rooms_made += bool(found)
        return found > 0

    def _renewed(self, opened: _Opened) -> bool:
        """Opens the folder again where it was removed or replaced; False while it is the same, and where that fails."""
        with self._opening:
            if self._opened is opened:
                if not (opened.folder.is_removed() or opened.folder.is_replaced()):
                    return False
                try:
                    self._opened = self._open()
                except UnusableFolder as error:
                    if str(error) != self._refused:
                        log.error("the folder in use has another's path now, and stays in use: %s", error)  # noqa: TRY400
                    self._refused = str(error)
                    return False
                log.error("%s was removed or replaced, and with it all payloads; what is there now is used", self._path)
        return True

    def _open(self) -> _Opened:
        """The folder, which is empty or was used for payloads before, and can hold some. UnusableFolder."""
        folder = OwnFolder.open(self._path)
        check_own(folder)
        try:
            folder.close_to_others()
            check_own(folder)  # again: what others can have put there until now
            opened = _Opened(folder, Spares(folder))
            _probe(opened)
        except OSError as error:
            raise UnusableFolder(
                f"{self._path} cannot hold payloads: {error.strerror}; give a folder that this user may write to, on a "
                "file system with locks and file times"
            ) from error
        return opened


def open_store(client: redis.Redis, folder: Path | None, drop_cached: Callable[[int], Sequence[str]]) -> PayloadStore:
    """The store in `folder`, or in Redis where there is none. Raises UnusableFolder."""
    return DirectoryPayloads(folder, RedisClock(client), drop_cached) if folder else RedisPayloads(client)


def check_own(folder: OwnFolder) -> None:
    """Raises UnusableFolder for a folder with other things in it; the spares' folder tells one that was used before."""
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


def _probe(opened: _Opened) -> None:
    """Writes a payload and deletes it. OSError for what the file system cannot do; that it is full is no error."""
    name = uuid.uuid4().hex
    try:
        _Writing(opened, name, 7, lambda action: action()).write([b"a probe"], bytes, time.time)
    except OSError as error:
        if error.errno not in _FULL:
            raise
    _unlink(opened.folder, name)


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no payload's name")


def _readable(names: Sequence[str]) -> list[str]:
    """Those that are payloads' names; others, which something else must have written to Redis, are logged."""
    good = [name for name in names if _NAME.fullmatch(name)]
    if len(good) < len(names):
        log.error("not deleted, since they are no payloads' names: %s", sorted({*names}.difference(good)))
    return good


class _Writing:
    """A payload's file while it is written. Raises OSError; `with_room` runs each step that takes room."""

    def __init__(self, opened: _Opened, name: str, size: int, with_room: Callable[[Callable[[], Any]], Any]) -> None:
        self._folder, self._name = opened.folder, name
        self._with_room = with_room
        part = name + _PART
        spare = opened.spares.take(size, part)
        file: int
        file, self._old = spare or (with_room(lambda: opened.folder.create(part)), 0)
        self._file = file

    def write(self, body: Iterable[Data], end: Callable[[], Data], expires: Callable[[], float]) -> int:
        """Writes the body and what comes behind it, and gives the file its name; its bytes."""
        folder, file, part = self._folder, self._file, self._name + _PART
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = self._write(body)
            size += self._write([end()])
            if self._old > size:
                os.ftruncate(file, size)
            times = (expires(),) * 2
            os.utime(file, times)
            os.rename(part, self._name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        except BaseException:
            _unlink(folder, part)
            raise
        finally:
            os.close(file)
        return size

    def _write(self, buffers: Iterable[Data]) -> int:
        """Writes all of them, as many as go in one call to the system; their bytes."""
        views = (memoryview(buffer).cast("B") for buffer in buffers)
        rest: deque[memoryview] = deque()
        size = 0
        while True:
            while len(rest) < _IOV_MAX and sum(map(len, rest)) < PART_BYTES and (view := next(views, None)) is not None:
                rest.append(view)
            if not rest:
                return size
            written: int = self._with_room(lambda: os.writev(self._file, rest))
            size += written
            while rest and written >= len(rest[0]):
                written -= len(rest.popleft())
            if written:
                rest[0] = rest[0][written:]


def _files(folder: OwnFolder) -> Iterator[tuple[str, os.stat_result]]:
    """The files of payloads, finished and not, that this service made."""
    with folder.entries() as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name.removesuffix(_PART)):
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    status = entry.stat(follow_symlinks=False)
                    if is_own_file(status):
                        yield entry.name, status


def _drop_abandoned(folder: OwnFolder, name: str, status: os.stat_result) -> bool:
    """Deletes an unfinished file whose writer is gone, as its lock tells; True when it did."""
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


@contextlib.contextmanager
def _alone(folder: OwnFolder) -> Iterator[None]:
    """Holds the folder's lock, which processes share; not where the file system has none for folders, as NFS."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fcntl.flock(folder.fd, fcntl.LOCK_EX)
            stack.callback(fcntl.flock, folder.fd, fcntl.LOCK_UN)
        yield


def _unlink(folder: OwnFolder, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        os.unlink(name, dir_fd=folder.fd)


def _in_memory(folder: Path) -> bool:
    """True for a folder of a tmpfs, where the system tells."""
    if not MOUNTS.exists():
        return False
    kinds = {place: kind for _, place, kind, *_ in map(str.split, MOUNTS.read_text().splitlines())}
    path = folder.resolve()
    return next((kinds[str(it)] for it in (path, *path.parents) if str(it) in kinds), "") == "tmpfs"


def _runs(places: Sequence[Place]) -> Iterator[list[Place]]:
    """The places, those together that follow one another in a payload."""
    run: list[Place] = []
    for place in places:
        if run and place[:2] != (run[-1][0], run[-1][1] + run[-1][2]):
            yield run
            run = []
        run.append(place)
    if run:
        yield run
