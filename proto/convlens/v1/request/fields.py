"""SpecError, which names the field of a request that is at fault, and the checks that several fields share."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from convlens.v1.enums import short_name

if TYPE_CHECKING:
    from convlens.v1.enums import WireEnum

LISTED_NAMES: Final = 40
"""Names that a message lists at most."""


class SpecError(ValueError):
    """A field of the request that cannot be granted."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


def check_range(number: int, field: str, largest: int) -> int:
    """Return `number`. Raises SpecError unless it is in 1…`largest`."""
    if not 1 <= number <= largest:
        raise SpecError(field, f"is {number}; allowed: 1…{largest}")
    return number


def enum_name(enum: WireEnum[Any], value: int, field: str) -> str:
    """Return the short name of an enum's value, empty for UNSPECIFIED.

    Raises SpecError for a value that the enum does not have, such as a newer client's.
    """
    name = short_name(enum, value)
    if name is None:
        raise SpecError(field, f"is {value}; allowed: {', '.join(enum.keys()[1:])}")
    return name


def unknown_layer(field: str, layer: str, model: str, layers: Collection[str]) -> SpecError:
    """Return the error for a layer that the model does not have."""
    return SpecError(field, f"no layer {layer!r} in model {model!r}; allowed: {join_names(layers)}")


def join_names(names: Collection[str]) -> str:
    """Join names for an error message, cut after LISTED_NAMES."""
    return ", ".join(list(names)[:LISTED_NAMES]) + (", …" if len(names) > LISTED_NAMES else "")
