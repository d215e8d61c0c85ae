"""How map() makes jobs of very many images: packed by the time they take, and parted again where one of them fails.

Knows nothing of calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Final

from convlens.client.arrays import ValueRange
from convlens.client.errors import ConvlensError, InvalidArgument, JobFailed
from convlens.client.images import ImageLike, Outgoing, pack_one
from convlens.client.results import Result
from convlens.client.targets import ItemTarget, units_of
from convlens.v1 import spec_pb2

FIRST: Final = 16
"""Images of a job at first; later as many as it has time for, within bounds."""
LEAST: Final = 8
MOST: Final = 64
QUICK: Final = 1.0
"""Seconds: a job that takes less is followed by larger ones, which cost less an image."""
SLOW: Final = 4.0
"""Seconds: one that takes more is followed by smaller ones, so that results come soon and long before a deadline."""
PACK_BYTES: Final = 16 << 20
"""A job's bytes, unless one image alone has more."""

ItemError = ConvlensError | OSError
"""What one image may end with: a file that cannot be read is no error of the service."""


class Batch:
    """The images of a job of map(), and what was no image, in its place among them as the error that it is."""

    def __init__(self) -> None:
        self.images = Outgoing()
        self.targets: list[spec_pb2.Target] = []
        """One an image; none where all images of map() share one."""
        self.errors: dict[int, ItemError] = {}
        """By place."""

    def __len__(self) -> int:
        return len(self.images) + len(self.errors)

    def in_place(self, found: Sequence[Result | ItemError]) -> list[Result | ItemError]:
        """What was found of the images, and the errors, in the batch's order."""
        results = iter(found)
        return [self.errors[place] if place in self.errors else next(results) for place in range(len(self))]


class Packer:
    """Collects images until they make a job. `value_range` says what float arrays span."""

    def __init__(self, value_range: ValueRange | None = None) -> None:
        self.size = FIRST
        """Images of the next job."""
        self._value_range = value_range
        self._batch = Batch()

    def add(self, image: ImageLike, target: ItemTarget = None) -> Batch | None:
        """The images that make a job, this one not among them when it found no room; mostly none yet.

        A job's own targets all have equally many units, since its maps have one shape.
        """
        full = None
        try:
            packed = pack_one(image, self._value_range)
            if isinstance(target, InvalidArgument):
                raise target
        except (InvalidArgument, OSError) as error:
            self._batch.errors[len(self._batch)] = error
        else:
            if self._batch.images.size + len(packed.data) > PACK_BYTES or self._is_unlike(target):
                full = self.rest()
            self._batch.images.add(packed)
            if target is not None:
                self._batch.targets.append(target)
        return full or (self.rest() if len(self._batch) >= self.size else None)

    def _is_unlike(self, target: spec_pb2.Target | None) -> bool:
        """True where the images collected have targets of another number of units."""
        others = self._batch.targets
        return target is not None and bool(others) and units_of(others[0]) != units_of(target)

    def took(self, images: int, seconds: float) -> None:
        """Fits the size to the time that a job of so many images took, from its sending to its result."""
        if seconds < QUICK:
            self.size = max(self.size, min(MOST, 2 * images))
        elif seconds > SLOW:
            self.size = min(self.size, max(LEAST, images // 2))

    def rest(self) -> Batch | None:
        """Those collected, none any more afterwards; None for none."""
        batch, self._batch = self._batch, Batch()
        return batch if len(batch) else None


def checked_map(errors: Any, in_flight: Any) -> None:
    """InvalidArgument for options of map() that are none."""
    if errors not in ("raise", "return"):
        raise InvalidArgument(f"no errors {errors!r}; allowed: raise, return", field="errors")
    if isinstance(in_flight, bool) or not isinstance(in_flight, Integral) or in_flight < 1:
        raise InvalidArgument(f"in_flight is {in_flight!r}; allowed: whole numbers from 1", field="in_flight")


Pack = tuple[Outgoing, list[spec_pb2.Target]]
"""Images that go as one job, and one target an image, or none."""


def parted(images: Outgoing, targets: list[spec_pb2.Target], error: ConvlensError) -> list[Pack]:
    """How images that failed as one job are tried again: what is before, at and behind the one at fault, or halves.

    Each keeps its target. Empty where there is nothing to part, or the error says nothing of the images.
    """
    if len(images) == 1 or not isinstance(error, InvalidArgument | JobFailed):
        return []
    named = re.match(r"spec\.(images|targets)\[(\d+)\]", error.field)
    if named and named[1] == "targets" and not targets:
        return []  # it is the target of all
    cuts = [int(named[2]), int(named[2]) + 1] if named else [len(images) // 2]
    sent = images.images
    parts = [slice(start, end) for start, end in zip([0, *cuts], [*cuts, len(images)], strict=True) if start < end]
    return [(Outgoing(sent[part]), targets[part]) for part in parts]
