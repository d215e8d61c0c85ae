"""Payloads in Redis: chunks of 256 KiB, each a string key with a TTL."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import redis

from convlens.jobs.payloads.store import BATCH_BYTES, ByteRange, Data, PayloadStore, StoreFull
from convlens.jobs.runtime.redis_client import KEY_PREFIX, for_large_values

CHUNK_BYTES: Final = 1 << 18
_SET_WHEN_FULL: Final = """#!lua flags=allow-oom
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"""


class RedisPayloads(PayloadStore):
    """A store in Redis. Raises redis.RedisError where Redis cannot be reached."""

    may_block = True

    def __init__(self, client: redis.Redis) -> None:
        self._redis = for_large_values(client)
        self._set_when_full = self._redis.register_script(_SET_WHEN_FULL)

    def put(self, name: str, parts: Iterable[Data], ttl: float, *, reserved: bool = True) -> int:
        """See PayloadStore. A round trip carries BATCH_BYTES; reserved bytes are written beyond maxmemory."""
        size = 0
        ttl_ms = max(1, int(ttl * 1000))
        chunks = enumerate(_chunks(parts))
        while batch := [(_key(name, i), chunk) for i, chunk in itertools.islice(chunks, BATCH_BYTES // CHUNK_BYTES)]:
            size += sum(len(chunk) for _, chunk in batch)
            try:
                with self._redis.pipeline(transaction=False) as pipe:
                    for key, chunk in batch:
                        pipe.set(key, chunk, px=ttl_ms)
                    pipe.execute()
            except redis.OutOfMemoryError as error:
                if not reserved:
                    raise StoreFull("Redis is full (maxmemory)") from error
                for key, chunk in batch:
                    self._set_when_full([key], [chunk, ttl_ms])
        return size

    def read_many(self, ranges: Sequence[ByteRange]) -> list[Data | None]:
        """See PayloadStore. Each chunk is fetched once; Valkey sends whole ones without a copy."""
        slices = [list(_slices(*byte_range)) for byte_range in ranges]
        spans: dict[str, tuple[int, int]] = {}
        for key, start, end in itertools.chain.from_iterable(slices):
            low, high = spans.get(key, (start, end))
            spans[key] = min(low, start), max(high, end)
        with self._redis.pipeline(transaction=False) as pipe:
            for key, (low, high) in spans.items():
                if (low, high) == (0, CHUNK_BYTES):
                    pipe.get(key)
                else:
                    pipe.getrange(key, low, high - 1)
            replies = pipe.execute(raise_on_error=False)
        chunks = {key: _chunk(reply) for key, reply in zip(spans, replies, strict=True)}
        payloads = [
            _joined([chunks[key][start - spans[key][0] : end - spans[key][0]] for key, start, end in of_range])
            for of_range in slices
        ]
        return [data if len(data) == length else None for data, (_, _, length) in zip(payloads, ranges, strict=True)]

    def delete(self, names: Sequence[str]) -> None:
        """See PayloadStore. A payload's number of chunks is not stored: ever more are deleted until one is missing."""
        numbers = range(8)
        while names:
            with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.unlink(*(_key(name, number) for number in numbers))
                counts = pipe.execute()
            names = [name for name, count in zip(names, counts, strict=True) if count == len(numbers)]
            numbers = range(numbers.stop, 8 * numbers.stop)

    def sweep(self) -> None:
        """Do nothing: Redis expires keys itself."""


def _key(name: str, chunk: int) -> str:
    return f"{KEY_PREFIX}payload:{name}:{chunk}"


def _chunk(reply: bytes | Exception | None) -> memoryview:
    """Return a chunk as Redis replies it; empty where there is none, or a key of another type."""
    if isinstance(reply, Exception):
        if not str(reply).startswith("WRONGTYPE"):
            raise reply
        reply = None
    return memoryview(reply or b"")


def _slices(name: str, offset: int, length: int) -> Iterator[tuple[str, int, int]]:
    """Yield the chunks that a range of bytes lies in: each one's key, and start and end within the chunk."""
    end = offset + length
    for number in range(offset // CHUNK_BYTES, -(-end // CHUNK_BYTES)):
        first = number * CHUNK_BYTES
        yield _key(name, number), max(0, offset - first), min(end - first, CHUNK_BYTES)


def _chunks(parts: Iterable[Data]) -> Iterator[Data]:
    """Yield the parts' bytes in pieces of CHUNK_BYTES, copied only where one spans several parts. Never none."""
    pieces: list[memoryview] = []
    missing = CHUNK_BYTES
    is_empty = True
    for part in parts:
        view = memoryview(part).cast("B")
        while len(view) >= missing:
            yield _joined([*pieces, view[:missing]])
            view = view[missing:]
            pieces, missing, is_empty = [], CHUNK_BYTES, False
        if view:
            pieces.append(view)
            missing -= len(view)
    if pieces or is_empty:
        yield _joined(pieces)


def _joined(pieces: list[memoryview]) -> Data:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
