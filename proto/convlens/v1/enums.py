"""Wire enums ↔ the short names that people use: SALIENCY_METHOD_GUIDED is guided."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

    WireEnum = _EnumTypeWrapper

V = TypeVar("V", bound=int)


def values_by_name(enum: WireEnum[V]) -> dict[str, V]:
    """Return an enum's values by their short names, in the order of the .proto file, without UNSPECIFIED."""
    prefix = enum.keys()[0].removesuffix("UNSPECIFIED")
    return {name.removeprefix(prefix).lower(): value for name, value in enum.items() if value}


def short_name(enum: WireEnum[V], value: int) -> str | None:
    """Return the short name of a value: empty for UNSPECIFIED, None for one that the enum does not have."""
    return _names_by_value(enum).get(value)


@functools.cache
def _names_by_value(enum: Any) -> dict[int, str]:
    return {0: ""} | {value: name for name, value in values_by_name(enum).items()}
