"""Payloads: images in, tensors out, as raw bytes under a name. One small interface, two stores.

A payload lives for a while and is then gone. Names are letters, digits and hyphens, drawn by the ledger.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

import redis

from convlens.jobs import keys
from convlens.jobs.connect import RedisClock, for_large_values
from convlens.jobs.spares import Spares

log = logging.getLogger(__name__)

CHUNK: Final = 1 << 18
"""Bytes of one chunk in Redis."""
PART: Final = 4 * CHUNK
"""Bytes of a payload that are fetched as one."""
PART_BYTES: Final = 64 * CHUNK
"""Of a body that are drawn before they are written."""
SPARES: Final = ".spares"
"""The folder's folder of files to be written again."""

MOUNTS: Final = Path("/proc/self/mounts")
"""Where the system tells which file system is where."""
_IOV_MAX: Final = os.sysconf("SC_IOV_MAX")

T = TypeVar("T")

Data = bytes | memoryview
Place = tuple[str, int, int]
"""A payload's name, an offset in it, and a length."""


class PayloadGone(LookupError):
    """A payload that is not there, or not whole, or not what was written."""


class StoreFull(RuntimeError):
    """The store has no room for a payload."""


class PayloadStore(Protocol):
    """Where payloads live."""

    @property
    def waits(self) -> bool:
        """False where they are in this machine's memory: reading never waits for anything."""

    def put(
        self,
        name: str,
        body: Iterable[Data],
        size: int,
        ttl: float,
        end: Callable[[], Data] = bytes,
        *,
        reserved: bool = True,
    ) -> int:
        """Writes a payload for `ttl` seconds; its bytes. StoreFull.

        The body, of `size` bytes, is drawn as it is written: no more than PART_BYTES and one buffer of it are held at
        once. `end` is asked for what comes behind the body once that is written. One that had its room `reserved` is
        written though the store is full, so that work under way can end.
        """

    def read(self, name: str, offset: int, length: int) -> Data:
        """`length` bytes from `offset` on. PayloadGone when they are not all there."""

    def fill(self, name: str, into: Sequence[memoryview]) -> None:
        """Fills buffers with a payload's first bytes, one after another. PayloadGone, as read()."""

    def read_many(self, wanted: Sequence[Place]) -> Sequence[Data | None]:
        """What read() gives of each place, in one go; None for what is gone."""

    def delete(self, names: Sequence[str]) -> None:
        """Forgets payloads; names that are not there are no error."""

    def sweep(self) -> None:
        """Deletes what has outlived its time, where the store does not do it by itself."""


_SET: Final = """#!lua flags=allow-oom
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"""


class RedisPayloads:
    """Payloads in Redis, in chunks of 256 KiB with a TTL each."""

    waits = True

    def __init__(self, client: redis.Redis) -> None:
        self._redis = for_large_values(client)
        self._set = self._redis.register_script(_SET)

    def put(
        self,
        name: str,
        body: Iterable[Data],
        size: int,  # noqa: ARG002 - chunks need no room of their own
        ttl: float,
        end: Callable[[], Data] = bytes,
        *,
        reserved: bool = True,
    ) -> int:
        """See PayloadStore. So many chunks a round trip bound the memory."""
        written = 0
        life = max(1, int(ttl * 1000))
        chunks = enumerate(_chunks(itertools.chain(body, _later(end))))
        while some := [
            (keys.payload(name, number), chunk) for number, chunk in itertools.islice(chunks, PART_BYTES // CHUNK)
        ]:
            written += sum(len(chunk) for _, chunk in some)
            try:
                with self._redis.pipeline(transaction=False) as pipe:
                    for key, chunk in some:
                        pipe.set(key, chunk, px=life)
                    pipe.execute()
            except redis.OutOfMemoryError as error:
                if not reserved:
                    raise StoreFull("Redis is full (maxmemory)") from error
                for key, chunk in some:
                    self._set([key], [chunk, life])
        return written

    def read(self, name: str, offset: int, length: int) -> Data:
        """See PayloadStore."""
        (data,) = self.read_many([(name, offset, length)])
        return _there(data, name)

    def fill(self, name: str, into: Sequence[memoryview]) -> None:
        """See PayloadStore. So many bytes a round trip bound the memory."""
        parts = _parts(name, into)
        while some := list(itertools.islice(parts, 4)):
            found = self.read_many([place for place, _ in some])
            for (_, part), data in zip(some, found, strict=True):
                part[:] = _there(data, name)

    def read_many(self, wanted: Sequence[Place]) -> list[Data | None]:
        """See PayloadStore. Each chunk is fetched once; whole ones are sent by Valkey without a copy."""
        pieces = [list(_pieces(*place)) for place in wanted]
        spans: dict[str, tuple[int, int]] = {}
        for key, start, end in itertools.chain.from_iterable(pieces):
            low, high = spans.get(key, (start, end))
            spans[key] = min(low, start), max(high, end)
        with self._redis.pipeline(transaction=False) as pipe:
            for key, (low, high) in spans.items():
                if (low, high) == (0, CHUNK):
                    pipe.get(key)
                else:
                    pipe.getrange(key, low, high - 1)
            chunks = {key: memoryview(data or b"") for key, data in zip(spans, pipe.execute(), strict=True)}
        found = [
            _joined([chunks[key][start - spans[key][0] : end - spans[key][0]] for key, start, end in parts])
            for parts in pieces
        ]
        return [data if len(data) == length else None for data, (_, _, length) in zip(found, wanted, strict=True)]

    def delete(self, names: Sequence[str]) -> None:
        """See PayloadStore. Chunks are found by counting until one is not there."""
        numbers = range(8)
        while names:
            with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.unlink(*(keys.payload(name, number) for number in numbers))
                found = pipe.execute()
            names = [name for name, count in zip(names, found, strict=True) if count == len(numbers)]
            numbers = range(numbers.stop, 8 * numbers.stop)

    def sweep(self) -> None:
        """Nothing: Redis expires its keys itself."""


class DirectoryPayloads:
    """Payloads as files of one folder that server and workers share; a file's mtime is when it expires, by `clock`."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = os.fspath(folder)
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._spares = Spares(folder / SPARES)
        self.waits = not _in_memory(folder)

    def _path(self, name: str) -> str:
        if not re.fullmatch(r"[0-9A-Za-z-]+", name):
            raise ValueError(f"{name!r} is no payload's name")
        return f"{self._folder}/{name}"

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
        """See PayloadStore. Readers see the whole file or none."""
        path = self._path(name)
        part = f"{path}.part"
        try:
            old = self._spares.take(size, part)
            file = os.open(part, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                written = _write(file, body) + _write(file, [end()])
                if old > written:
                    os.ftruncate(file, written)
                expires = self._clock() + ttl
                os.utime(file, (expires, expires))
            finally:
                os.close(file)
            os.rename(part, path)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise StoreFull(f"cannot write a payload to {self._folder}: {error.strerror}") from error
        return written

    def read(self, name: str, offset: int, length: int) -> Data:
        """See PayloadStore."""
        return _there(self._read(name, offset, length), name)

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

    def fill(self, name: str, into: Sequence[memoryview]) -> None:
        """See PayloadStore."""
        if self._seen(name, lambda file: os.preadv(file, into, 0)) != sum(map(len, into)):
            raise _gone(name)

    def _read(self, name: str, offset: int, length: int) -> bytes | None:
        data = self._seen(name, lambda file: os.pread(file, length, offset))
        return data if data is not None and len(data) == length else None

    def _seen(self, name: str, look: Callable[[int], T]) -> T | None:
        """What is seen of a payload's file; None when it is gone."""
        path = self._path(name)
        try:
            file = os.open(path, os.O_RDONLY)
            try:
                found = look(file)
                os.stat(path)  # a file that is gone by now may have been written again meanwhile
            finally:
                os.close(file)
        except FileNotFoundError:
            return None
        return found

    def delete(self, names: Sequence[str]) -> None:
        """See PayloadStore. What cannot be deleted is left to sweep(), once its time is over."""
        try:
            if names:
                self._spares.give(map(self._path, names))
        except OSError as error:
            log.warning("payloads=%s are not deleted now: %s", ",".join(names), error.strerror)

    def sweep(self) -> None:
        """Deletes the files whose time is over; unfinished ones after an hour, those not written again in time."""
        now = self._clock()
        with os.scandir(self._folder) as entries:
            for entry in entries:
                life = 3600 if entry.name.endswith(".part") else 0
                with contextlib.suppress(FileNotFoundError):  # another sweeper was faster
                    if entry.name != SPARES and entry.stat().st_mtime + life < now:
                        os.unlink(entry.path)
        self._spares.sweep()


def open_store(client: redis.Redis, folder: Path | None) -> PayloadStore:
    """The store in `folder`, or in Redis where there is none."""
    return DirectoryPayloads(folder, RedisClock(client)) if folder else RedisPayloads(client)


def _in_memory(folder: Path) -> bool:
    """True for a folder of a tmpfs, where the system tells."""
    if not MOUNTS.exists():
        return False
    kinds = {place: kind for _, place, kind, *_ in map(str.split, MOUNTS.read_text().splitlines())}
    path = folder.resolve()
    return next((kinds[str(it)] for it in (path, *path.parents) if str(it) in kinds), "") == "tmpfs"


def _there(data: Data | None, name: str) -> Data:
    """`data`, when there is any. PayloadGone."""
    if data is None:
        raise _gone(name)
    return data


def _gone(name: str) -> PayloadGone:
    return PayloadGone(f"payload {name} is gone, or is not as long as it was")


def _later(end: Callable[[], Data]) -> Iterator[Data]:
    yield end()


def _write(file: int, buffers: Iterable[Data]) -> int:
    """Writes all of them, as many as go in one call to the system; their bytes."""
    views = (memoryview(buffer).cast("B") for buffer in buffers)
    rest: deque[memoryview] = deque()
    size = 0
    while True:
        while len(rest) < _IOV_MAX and sum(map(len, rest)) < PART_BYTES and (view := next(views, None)) is not None:
            rest.append(view)
        if not rest:
            return size
        written = os.writev(file, rest)
        size += written
        while rest and written >= len(rest[0]):
            written -= len(rest.popleft())
        if written:
            rest[0] = rest[0][written:]


def _pieces(name: str, offset: int, length: int) -> Iterator[tuple[str, int, int]]:
    """The chunks that have a place: the key of each, and from where to where."""
    for number in range(offset // CHUNK, -(-(offset + length) // CHUNK)):
        start, end = (min(max(0, it - number * CHUNK), CHUNK) for it in (offset, offset + length))
        yield keys.payload(name, number), start, end


def _parts(name: str, into: Sequence[memoryview]) -> Iterator[tuple[Place, memoryview]]:
    """The buffers in pieces of PART bytes at most, each with its place in a payload that fills them all."""
    offset = 0
    for room in into:
        for start in range(0, len(room), PART):
            part = room[start : start + PART]
            yield (name, offset, len(part)), part
            offset += len(part)


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


def _chunks(buffers: Iterable[Data]) -> Iterator[Data]:
    """The buffers' bytes in pieces of CHUNK, copied only where a piece spans several buffers. Never none."""
    pieces: list[memoryview] = []
    room = CHUNK
    empty = True
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        while len(view) >= room:
            yield _joined([*pieces, view[:room]])
            view = view[room:]
            pieces, room, empty = [], CHUNK, False
        if view:
            pieces.append(view)
            room -= len(view)
    if pieces or empty:
        yield _joined(pieces)


def _joined(pieces: list[memoryview]) -> Data:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
