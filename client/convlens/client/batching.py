"""How map() groups images into jobs: sized by the time jobs take, split where one image makes a job fail.

Makes no calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Final

from convlens.client.arrays import ValueRange
from convlens.client.errors import ConvlensError, InvalidArgument, JobFailed
from convlens.client.images import ImageLike, SentImage, pack_one
from convlens.client.result import Result
from convlens.client.targets import ItemTarget, units_of
from convlens.v1 import spec_pb2

FIRST_SIZE: Final = 16
"""Images of the first jobs."""
SMALLEST_SIZE: Final = 8
LARGEST_SIZE: Final = 64
FAST_JOB: Final = 1.0
"""Seconds: after a faster job the next ones are larger, which costs less per image."""
SLOW_JOB: Final = 4.0
"""Seconds: after a slower job the next ones are smaller, so that results come soon and well before a deadline."""
BATCH_BYTES: Final = 16 << 20
"""Bytes of a job's images, unless a single image has more."""

ItemError = ConvlensError | OSError
"""What one image of map() may fail with; OSError if its file cannot be read."""


@dataclass(slots=True)
class Batch:
    """The images of one job of map(), and the errors of those that cannot be sent, by position."""

    images: list[SentImage] = field(default_factory=list)
    targets: list[spec_pb2.Target] = field(default_factory=list)
    """One per image; empty if all images of map() share one."""
    errors: dict[int, ItemError] = field(default_factory=dict)
    byte_size: int = 0

    def __len__(self) -> int:
        return len(self.images) + len(self.errors)

    def in_order(self, outcomes: Sequence[Result | ItemError]) -> list[Result | ItemError]:
        """Return the outcomes of the images, and the errors of the others, in the batch's order."""
        results = iter(outcomes)
        return [self.errors[i] if i in self.errors else next(results) for i in range(len(self))]


class Batcher:
    """Collect images until they make a job. `value_range` says what float arrays span."""

    def __init__(self, value_range: ValueRange | None = None) -> None:
        self.size = FIRST_SIZE
        """Images of the next job."""
        self._value_range = value_range
        self._batch = Batch()

    def add(self, image: ImageLike, target: ItemTarget = None) -> Batch | None:
        """Add an image and return the batch that is complete, if one is; an image that does not fit starts the next.

        All targets of a batch have the same number of units, since its maps have one shape.
        """
        complete = None
        try:
            packed = pack_one(image, self._value_range)
            if isinstance(target, InvalidArgument):
                raise target
        except (InvalidArgument, OSError) as error:
            self._batch.errors[len(self._batch)] = error
        else:
            if self._batch.byte_size + len(packed.serialized) > BATCH_BYTES or self._has_other_units(target):
                complete = self.flush()
            self._batch.images.append(packed)
            self._batch.byte_size += len(packed.serialized)
            if target is not None:
                self._batch.targets.append(target)
        return complete or (self.flush() if len(self._batch) >= self.size else None)

    def _has_other_units(self, target: spec_pb2.Target | None) -> bool:
        """True if the targets collected so far have another number of units."""
        collected = self._batch.targets
        return target is not None and bool(collected) and units_of(collected[0]) != units_of(target)

    def adapt(self, images: int, seconds: float) -> None:
        """Adapt the size to the time from sending a job of `images` images to its result."""
        if seconds < FAST_JOB:
            self.size = max(self.size, min(LARGEST_SIZE, 2 * images))
        elif seconds > SLOW_JOB:
            self.size = min(self.size, max(SMALLEST_SIZE, images // 2))

    def flush(self) -> Batch | None:
        """Return the images collected and start anew; None if there are none."""
        batch, self._batch = self._batch, Batch()
        return batch if len(batch) else None


def check_map_options(errors: object, in_flight: object) -> None:
    """Raise InvalidArgument for invalid options of map()."""
    if errors not in ("raise", "return"):
        raise InvalidArgument(f"no errors {errors!r}; allowed: raise, return", field="errors")
    if isinstance(in_flight, bool) or not isinstance(in_flight, Integral) or in_flight < 1:
        raise InvalidArgument(f"in_flight is {in_flight!r}; allowed: whole numbers from 1", field="in_flight")


def bisect_on_error(batch: Batch, error: ConvlensError) -> list[Batch]:
    """Split a failed batch for another try: before, at and behind the image at fault, or in halves if none is named.

    Empty if there is nothing to split, or if the error is not about an image.
    """
    count = len(batch.images)
    if count == 1 or not isinstance(error, InvalidArgument | JobFailed):
        return []
    culprit = re.match(r"spec\.(images|targets)\[(\d+)\]", error.field)
    if culprit and culprit[1] == "targets" and not batch.targets:
        return []  # the target of all images
    cuts = [int(culprit[2]), int(culprit[2]) + 1] if culprit else [count // 2]
    parts = [slice(start, end) for start, end in zip([0, *cuts], [*cuts, count], strict=True) if start < end]
    return [Batch(batch.images[part], batch.targets[part]) for part in parts]
