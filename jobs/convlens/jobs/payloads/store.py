"""The protocol of a payload store, its errors, and the names that payloads have.

A payload is written once, read at any offset, and gone after its time to live. How to add a store: see __init__.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

BATCH_BYTES: Final = 16 << 20
"""Bytes that a store draws of a payload before it writes them."""
BATCH_PARTS: Final = 1024
"""Parts of a batch at most: Linux' IOV_MAX."""

Data = bytes | memoryview
ByteRange = tuple[str, int, int]
"""A payload's name, an offset in it and a length, both in bytes."""

_NAME: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{24}-[0-9A-Za-z-]{1,128}")
"""A bundle of images, or a result: the token of the claim that made it."""


class PayloadGone(LookupError):
    """A payload that has expired, was deleted, or is shorter than the range read."""


class StoreFull(RuntimeError):
    """The store has no space for a payload."""


class PayloadStore(Protocol):
    """Where payloads live. Thread-safe; processes that are given the same place share their payloads."""

    may_block: bool
    """False where payloads are in this machine's memory, so that reading waits for nothing."""

    def put(self, name: str, parts: Iterable[Data], ttl: float, *, reserved: bool = True) -> int:
        """Write a payload that lives `ttl` seconds, and return its size in bytes. Raises StoreFull.

        Parts are drawn as they are written: no more than BATCH_BYTES and one part are held at once. `reserved` says
        that admission counted these bytes beforehand: they are written beyond a soft limit, so that a job under way
        can end.
        """

    def read_many(self, ranges: Sequence[ByteRange]) -> list[Data | None]:
        """Return the bytes of each range, all read in one round trip; None where they are not all there."""

    def read(self, name: str, offset: int, length: int) -> Data:
        """Return `length` bytes from `offset` on. Raises PayloadGone where they are not all there."""
        (data,) = self.read_many([(name, offset, length)])
        if data is None:
            raise PayloadGone(f"payload {name} is gone, or is not as long as it was")
        return data

    def delete(self, names: Sequence[str]) -> None:
        """Delete payloads; a name that does not exist is no error."""

    def sweep(self) -> None:
        """Delete expired payloads, where the store does not do so by itself. One server calls this every second."""


def is_payload_name(name: str) -> bool:
    """Return whether `name` is one that the queue gives to payloads: safe as a file's name and in a key."""
    return _NAME.fullmatch(name) is not None


def in_batches(parts: Iterable[Data]) -> Iterator[list[memoryview]]:
    """Yield the parts as views of bytes, BATCH_BYTES or slightly more at a time.

    The list is cleared before the next parts are drawn, so that no two batches are in memory.
    """
    batch: list[memoryview] = []
    size = 0
    for part in parts:
        view = memoryview(part).cast("B")
        batch.append(view)
        size += len(view)
        if size >= BATCH_BYTES or len(batch) == BATCH_PARTS:
            yield batch
            batch.clear()
            size = 0
    if batch:
        yield batch
