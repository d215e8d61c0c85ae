"""Payloads: images in, tensors out, as raw bytes under a name. One small interface, two stores.

A payload lives for a while and is then gone. Names are letters, digits and hyphens, drawn by the ledger.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import redis

from convlens.jobs import keys
from convlens.jobs.connect import RedisClock, for_large_values
from convlens.jobs.spares import Spares

CHUNK: Final = 1 << 20
"""Bytes of one chunk in Redis."""
SPARES: Final = ".spares"
"""The folder's folder of files to be written again."""

MOUNTS: Final = Path("/proc/self/mounts")
"""Where the system tells which file system is where."""

Data = bytes | memoryview


class PayloadGone(LookupError):
    """A payload that is not there, or not whole, or not what was written."""


class StoreFull(RuntimeError):
    """The store has no room for a payload."""


class PayloadStore(Protocol):
    """Where payloads live."""

    @property
    def waits(self) -> bool:
        """False where they are in this machine's memory: reading never waits for anything."""

    def put(self, name: str, buffers: Iterable[Data], ttl: float) -> int:
        """Writes a payload that had its room reserved, buffer after buffer, for `ttl` seconds; its bytes. StoreFull.

        The next buffer is asked for once the ones before are written.
        """

    def put_many(self, payloads: Sequence[tuple[str, Data]], ttl: float) -> None:
        """Writes several that had no room reserved, in one go. StoreFull; some may be there then."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on. PayloadGone when they are not all there."""

    def read_many(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """Whole payloads by name and size, in one go; None for one that is gone."""

    def delete(self, names: Sequence[str]) -> None:
        """Forgets payloads; names that are not there are no error."""

    def sweep(self) -> None:
        """Deletes what has outlived its time, where the store does not do it by itself."""


_SET: Final = """#!lua flags=allow-oom
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"""


class RedisPayloads:
    """Payloads in Redis, in chunks of 1 MiB with a TTL each."""

    waits = True

    def __init__(self, client: redis.Redis) -> None:
        self._redis = for_large_values(client)
        self._set = self._redis.register_script(_SET)

    def put(self, name: str, buffers: Iterable[Data], ttl: float) -> int:
        """See PayloadStore. It is written though Redis is full, so that work under way can end."""
        size = 0

        def chunks() -> Iterator[tuple[str, Data]]:
            nonlocal size
            for number, chunk in enumerate(_chunks(buffers)):
                size += len(chunk)
                yield keys.payload(name, number), chunk

        self._set_all(chunks(), ttl, reserved=True)
        return size

    def put_many(self, payloads: Sequence[tuple[str, Data]], ttl: float) -> None:
        """See PayloadStore."""
        chunks = (
            (keys.payload(name, start // CHUNK), data[start : start + CHUNK])
            for name, data in payloads
            for start in range(0, len(data) or 1, CHUNK)
        )
        self._set_all(chunks, ttl, reserved=False)

    def _set_all(self, values: Iterator[tuple[str, Data]], ttl: float, *, reserved: bool) -> None:
        """Sixteen chunks a round trip, which bounds the memory."""
        life = max(1, int(ttl * 1000))
        while some := list(itertools.islice(values, 16)):
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

    def read(self, name: str, offset: int, length: int) -> bytes:
        """See PayloadStore."""
        if not length:
            return b""
        first, last = offset // CHUNK, (offset + length - 1) // CHUNK
        with self._redis.pipeline(transaction=False) as pipe:
            for number in range(first, last + 1):
                start = max(0, offset - number * CHUNK)
                pipe.getrange(keys.payload(name, number), start, min(CHUNK, offset + length - number * CHUNK) - 1)
            parts: list[bytes] = pipe.execute()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(data) != length:
            raise PayloadGone(f"payload {name} is gone, or ends before byte {offset + length}")
        return data

    def read_many(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """See PayloadStore."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name, size in wanted:
                pipe.mget([keys.payload(name, number) for number in range(max(1, -(-size // CHUNK)))])
            found = pipe.execute()
        return [None if None in chunks else b"".join(chunks) for chunks in found]

    def delete(self, names: Sequence[str]) -> None:
        """See PayloadStore. Chunks are found by counting until one is not there."""
        numbers = range(8)
        while names:
            with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.unlink(*(keys.payload(name, number) for number in numbers))
                found = pipe.execute()
            names = [name for name, count in zip(names, found, strict=True) if count == len(numbers)]
            numbers = range(numbers.stop, 2 * numbers.stop)

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

    def put(self, name: str, buffers: Iterable[Data], ttl: float) -> int:
        """See PayloadStore. Readers see the whole file or none."""
        path = self._path(name)
        part = f"{path}.{uuid.uuid4().hex}.part"
        size = 0
        rest = iter(buffers)
        first = memoryview(next(rest, b""))
        try:
            self._spares.take(len(first), part)
            file = os.open(part, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                for buffer in itertools.chain([first], rest):
                    view = memoryview(buffer)
                    size += len(view)
                    while view:
                        view = view[os.write(file, view) :]
                os.ftruncate(file, size)
                expires = self._clock() + ttl
                os.utime(file, (expires, expires))
            finally:
                os.close(file)
            os.rename(part, path)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise StoreFull(f"cannot write a payload to {self._folder}: {error.strerror}") from error
        return size

    def put_many(self, payloads: Sequence[tuple[str, Data]], ttl: float) -> None:
        """See PayloadStore."""
        for name, data in payloads:
            self.put(name, [data], ttl)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """See PayloadStore."""
        path = self._path(name)
        try:
            file = os.open(path, os.O_RDONLY)
            try:
                data = os.pread(file, length, offset)
                os.stat(path)  # a file that is gone by now may have been written again meanwhile
            finally:
                os.close(file)
        except FileNotFoundError:
            raise PayloadGone(f"payload {name} is gone") from None
        if len(data) != length:
            raise PayloadGone(f"payload {name} is gone, or ends before byte {offset + length}")
        return data

    def read_many(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """See PayloadStore."""
        found: list[bytes | None] = []
        for name, size in wanted:
            try:
                found.append(self.read(name, 0, size))
            except PayloadGone:
                found.append(None)
        return found

    def delete(self, names: Sequence[str]) -> None:
        """See PayloadStore."""
        if names:
            self._spares.give(map(self._path, names))

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


def _chunks(buffers: Iterable[Data]) -> Iterator[Data]:
    """The buffers' bytes in pieces of CHUNK, copied only where a piece spans two buffers. Never none."""
    carried = bytearray()
    empty = True
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        if carried:
            room = CHUNK - len(carried)
            carried += view[:room]
            view = view[room:]
            if len(carried) < CHUNK:
                continue
            yield bytes(carried)
            carried.clear()
            empty = False
        while len(view) >= CHUNK:
            yield view[:CHUNK]
            view = view[CHUNK:]
            empty = False
        carried += view
    if carried or empty:
        yield bytes(carried)
