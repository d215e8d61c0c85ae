"""What is wrong with a field of a request: the error that names it, and the checks that several fields share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any


class SpecError(ValueError):
    """A field of the request that cannot be granted."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


def counted(number: int, field: str, most: int) -> int:
    """`number`, when it is in 1…`most`."""
    if not 1 <= number <= most:
        raise SpecError(field, f"is {number}; allowed: 1…{most}")
    return number


def named(enum: Any, value: int, field: str) -> str:
    """The name of an enum's value as the house has it: SALIENCY_METHOD_GUIDED is guided, unspecified is empty.

    SpecError for a number that the enum has no name for (a newer client's, perhaps).
    """
    name = _names(enum).get(value)
    if name is None:
        raise SpecError(field, f"is {value}; allowed: {', '.join(enum.keys()[1:])}")
    return name


@functools.cache
def _names(enum: Any) -> dict[int, str]:
    """By number."""
    name = lowered(enum)
    return {number: name(word) if number else "" for word, number in enum.items()}


def lowered(enum: Any) -> Callable[[str], str]:
    """SALIENCY_METHOD_GUIDED to guided."""
    prefix = enum.keys()[0].removesuffix("UNSPECIFIED")
    return lambda name: name.removeprefix(prefix).lower()


def no_layer(field: str, layer: str, model: str, layers: Collection[str]) -> SpecError:
    """What is raised for the name of a layer that is not there."""
    return SpecError(field, f"no layer {layer!r} in model {model!r}; allowed: {listed(layers)}")


def listed(names: Collection[str]) -> str:
    """Names for an error message, not endlessly many."""
    shown = list(names)[:40]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")
