"""Enum values of the wire by their short names: SALIENCY_METHOD_GUIDED is guided."""

from __future__ import annotations

from typing import Any


def numbers_by_name(enum: Any) -> dict[str, Any]:
    """Return the values of a protobuf enum by short name, without UNSPECIFIED."""
    return {_short(enum, name): number for name, number in enum.items() if number}


def name_of(enum: Any, number: int) -> str:
    """Return the short name of a value; empty for UNSPECIFIED and for a value newer than this client."""
    return _short(enum, enum.Name(number)) if number and number in enum.values() else ""


def _short(enum: Any, name: str) -> str:
    prefix: str = enum.keys()[0].removesuffix("UNSPECIFIED")
    return name.removeprefix(prefix).lower()
