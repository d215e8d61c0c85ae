"""How map() makes jobs of very many images: packed by the time they take, and parted again where one of them fails.

Knows nothing of calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from convlens.client.arrays import ValueRange
from convlens.client.errors import ConvlensError, InvalidArgument, JobFailed
from convlens.client.images import ImageLike, Outgoing, pack_one
from convlens.client.results import Result

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

    def add(self, image: ImageLike) -> Batch | None:
        """The images that make a job, this one not among them when it found no room; mostly none yet."""
        full = None
        try:
            packed = pack_one(image, self._value_range)
        except (InvalidArgument, OSError) as error:
            self._batch.errors[len(self._batch)] = error
        else:
            if self._batch.images.size + len(packed.data) > PACK_BYTES:
                full = self.rest()
            self._batch.images.add(packed)
        return full or (self.rest() if len(self._batch) >= self.size else None)

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


def parted(outgoing: Outgoing, error: ConvlensError) -> list[Outgoing]:
    """How images that failed as one job are tried again: what is before, at and behind the one at fault, or halves.

    None where there is nothing to part, or the error says nothing of the images.
    """
    if len(outgoing) == 1 or not isinstance(error, InvalidArgument | JobFailed):
        return []
    images = outgoing.images
    named = re.match(r"spec\.images\[(\d+)\]", error.field)
    cuts = [int(named[1]), int(named[1]) + 1] if named else [len(images) // 2]
    parts = [images[start:end] for start, end in zip([0, *cuts], [*cuts, len(images)], strict=True)]
    return [Outgoing(part) for part in parts if part]
