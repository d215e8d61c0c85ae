"""Messages put together from bytes that are there already, so that tensors are not copied through message objects.

A serialized message is its fields one after another, in any order; of a field that comes twice the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterable

Data = bytes | memoryview


def field(number: int, *parts: Data) -> list[Data]:
    """A bytes, string or message field whose value is `parts`, one after another: the pieces of its serialized form."""
    return [varint(number << 3 | 2) + varint(sum(map(len, parts))), *parts]


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


def message(parts: Iterable[Data]) -> bytes:
    """The pieces as one: the only copy."""
    return b"".join(parts)
