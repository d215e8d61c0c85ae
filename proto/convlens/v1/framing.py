"""Messages put together from bytes, and taken apart, so that tensors are not copied through message objects.

A serialized message is its fields one after another, in any order; of a field that comes twice the last one counts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

Data = bytes | memoryview
Tree = Mapping[int, "Tree | None"]
"""Fields by number, and which of their own fields; None for a bytes field that is meant itself."""
_LENGTHS: Final = {1: 8, 5: 4}
"""The bytes of what has a fixed size, by wire type."""


def field(number: int, *parts: Data) -> list[Data]:
    """A bytes, string or message field whose value is `parts`, one after another: the pieces of its serialized form."""
    return [tag(number) + varint(sum(map(len, parts))), *parts]


@functools.cache
def tag(number: int) -> bytes:
    """What such a field begins with, before its length."""
    return varint(number << 3 | 2)


def number(field_number: int, value: int) -> bytes:
    """An integer or bool field, ≥ 0, serialized."""
    return varint(field_number << 3) + varint(value)


def varint(value: int) -> bytes:
    """`value` ≥ 0 in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def patched(value: int) -> bytes:
    """`value` < 2³⁵ in five bytes whatever it is, for a place that is filled in once it is known."""
    return bytes(value >> shift & 0x7F | 0x80 for shift in (0, 7, 14, 21)) + bytes([value >> 28])


def message(parts: Iterable[Data]) -> bytes:
    """The pieces as one: the only copy."""
    return b"".join(parts)


def fields(data: memoryview) -> Iterator[tuple[int, memoryview | None, memoryview]]:
    """The fields of a serialized message: number, value (of bytes, strings and messages, else None), the whole field.

    ValueError for what is no message, groups included.
    """
    at, end = 0, len(data)
    while at < end:
        start = at
        key, at = _varint(data, at)
        value = None
        match key & 7:
            case 0:
                _, at = _varint(data, at)
            case 2:
                size, at = _varint(data, at)
                value = data[at : at + size]
                at += size
            case wire_type:
                at += _LENGTHS.get(wire_type, end)
        if at > end:
            raise ValueError(f"the field that begins at byte {start} goes beyond the message")
        yield key >> 3, value, data[start:at]


def lifted(data: memoryview, tree: Tree) -> tuple[list[Data], list[memoryview]]:
    """A serialized message without the bytes that `tree` leads to, in pieces, and these bytes, in order.

    Empty fields stay in their places. ValueError as in fields().
    """
    rest: list[Data] = []
    found: list[memoryview] = []
    for number_, value, whole in fields(data):
        if value is None or number_ not in tree:
            rest.append(whole)
        elif (inner := tree[number_]) is None:
            found.append(value)
            rest += field(number_)
        else:
            pieces, values = lifted(value, inner)
            found += values
            rest += field(number_, *pieces)
    return rest, found


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    try:
        while (byte := data[at]) > 0x7F:
            value |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if shift > 63:
                raise ValueError("a number of more than 64 bits")
    except IndexError:
        raise ValueError("a number goes beyond the message") from None
    return value | byte << shift, at + 1
