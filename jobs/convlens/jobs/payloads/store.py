"""Payloads: images in, tensors out, as raw bytes under a name. One small interface, and the store in Redis.

A payload lives for a while and is then gone. Names are drawn by the ledger: 32 hexadecimal digits, which letters,
digits and hyphens may follow. The other store is a folder (directory_payloads.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

import redis

from convlens.jobs.queue import keys
from convlens.jobs.runtime.redis_client import for_large_values

CHUNK: Final = 1 << 18
"""Bytes of one chunk in Redis."""
PART_BYTES: Final = 64 * CHUNK
"""Of a body that are drawn before they are written."""

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
        return there(data, name)

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
            answers = pipe.execute(raise_on_error=False)
        chunks = {key: _chunk(answer) for key, answer in zip(spans, answers, strict=True)}
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


def _chunk(answer: bytes | Exception | None) -> memoryview:
    """A chunk as Redis gives it; empty where there is none, or a key of another type."""
    if isinstance(answer, Exception):
        if not str(answer).startswith("WRONGTYPE"):
            raise answer
        answer = None
    return memoryview(answer or b"")


def there(data: Data | None, name: str) -> Data:
    """`data`, when there is any. PayloadGone."""
    if data is None:
        raise gone(name)
    return data


def gone(name: str) -> PayloadGone:
    """The error of a payload that is not there."""
    return PayloadGone(f"payload {name} is gone, or is not as long as it was")


def _later(end: Callable[[], Data]) -> Iterator[Data]:
    yield end()


def _pieces(name: str, offset: int, length: int) -> Iterator[tuple[str, int, int]]:
    """The chunks that have a place: the key of each, and from where to where."""
    for number in range(offset // CHUNK, -(-(offset + length) // CHUNK)):
        start, end = (min(max(0, it - number * CHUNK), CHUNK) for it in (offset, offset + length))
        yield keys.payload(name, number), start, end


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
