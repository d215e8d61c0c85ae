"""Scans a serialized protobuf message field by field, without objects for its values.

A security bound, measured by tests/unit/server/test_requests.py: requests are counted before protobuf parses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_SIZES: Final = {1: 8, 5: 4}
"""Bytes by wire type."""


def scan_fields(data: memoryview) -> Iterator[tuple[int, memoryview | None, int]]:
    """Yield number, value (of length-delimited fields, else None) and serialized size of each field.

    ValueError for what is no message; groups are none.
    """
    position, end = 0, len(data)
    while position < end:
        start = position
        key, position = _read_varint(data, position)
        value = None
        wire_type = key & 7
        if wire_type == _VARINT:
            _, position = _read_varint(data, position)
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _read_varint(data, position)
            value = data[position : position + length]
            position += length
        else:
            position += _FIXED_SIZES.get(wire_type, end + 1)
        if position > end:
            raise ValueError(f"the field at byte {start} is truncated or of unknown wire type {wire_type}")
        yield key >> 3, value, position - start


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return the number at `position`, and the position behind it."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a varint is truncated or too long")
