"""Methods that look at many variants of an image: noisy ones, steps of a path, with parts covered.

A variant is one more image of an ordinary pass, so that memory is bounded by the batch, strangers' variants share
passes, and methods that look at the same variants (SmoothGrad and VarGrad, integrated gradients and XRAI) pay for them
once. A method is one small file in `methods`. Knows no TensorFlow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from convlens.worker.engine.outputs import Completeness, Floats, Ints, Outputs
from convlens.worker.engine.plan import Map, Plan, Score
from convlens.worker.engine.preprocess import Preprocess

IN_FLIGHT: Final = 2
"""Passes under way at once, so that variants are drawn while the device computes."""

T = TypeVar("T")
Images = npt.NDArray[np.generic]
Submit = Callable[[Images, Plan, Ints], Callable[[], Outputs]]
"""Begins a pass of images, a plan and targets, and returns what waits for its outputs."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An image, and what the first pass found of it."""

    image: Floats
    """(H,W,3) RGB in 0…255."""
    maps: Mapping[Map, Floats]
    """What a method's `needs` asked for, without the batch axis."""
    scores: Floats
    """(T,)"""
    preprocess: Preprocess


class Variants(Hashable, Protocol):
    """A way to make variants of an image. A value: methods with equal ones share them."""

    @property
    def asks(self) -> Map:
        """What is wanted of each variant."""

    def count(self, subject: Subject) -> int:
        """How many there are."""

    def of(self, subject: Subject) -> Iterator[Floats]:
        """Each in turn, (H,W,3)."""


@dataclass(frozen=True, slots=True)
class Folded:
    """What a method makes of an image."""

    map: Floats
    """(T,…)"""
    completeness: Completeness | None = None
    """(T,) each, for a method that divides a difference of scores among the pixels."""


class Fold(Protocol):
    """Gathers what the variants of one image give, in their order."""

    def add(self, found: Floats, scores: Floats) -> None:
        """What was asked of the next variant, (T,…), and its scores (T,)."""

    def result(self) -> Folded:
        """The map, after the last one."""


class Sampled(Hashable, Protocol):
    """A method by its options; stands in a plan beside the maps of one pass."""

    @property
    def variants(self) -> Variants:
        """What it looks at."""

    @property
    def needs(self) -> tuple[Map, ...]:
        """Maps of the image itself that it reads."""

    def fold(self, subject: Subject) -> Fold:
        """Begins with an image."""


Asked = Map | Sampled
"""What a job may ask for."""


def split(asked: Iterable[Asked]) -> tuple[tuple[Map, ...], tuple[Sampled, ...]]:
    """The maps of the first pass, which chooses the targets and scores them, and the methods that need more."""
    maps: dict[Map, None] = {}
    sampled: list[Sampled] = []
    for item in asked:
        if isinstance(item, Map):
            maps[item] = None
        else:
            sampled.append(item)
            maps |= dict.fromkeys((Score(), *item.needs))
    return tuple(maps), tuple(sampled)


def complete(
    first: Outputs,
    images: Images,
    plan: Plan,
    sampled: Sequence[Sampled],
    preprocess: Preprocess,
    submit: Submit,
    batch: int,
    progress: Callable[[float], None] = lambda _: None,
) -> Outputs:
    """`first`, the outputs of `plan` on `images` (N,H,W,3), with the maps (N,T,…) of `sampled` added.

    Passes have up to `batch` images; `progress` is told the share of them that is done. What `submit` raises ends it.
    """
    if first.targets is None or first.scores is None:
        raise ValueError("the first pass must score targets; plan the maps that `split` gives")
    targets, scores = first.targets, first.scores

    def subject(row: int) -> Subject:
        maps = {item: array[row] for item, array in first.maps.items()}
        return Subject(images[row].astype(np.float32), maps, scores[row], preprocess)

    groups: dict[Variants, list[Sampled]] = {}
    for item in sampled:
        groups.setdefault(item.variants, []).append(item)
    rows = range(len(images))
    total = sum(variants.count(subject(row)) for variants in groups for row in rows)
    done = 0
    found: dict[Sampled, list[Folded]] = {item: [] for item in sampled}
    for variants, methods in groups.items():
        pass_plan = replace(plan, maps=(variants.asks,), predictions=0)
        gathered = _Gathered(methods, found)
        pieces = ((row, it, x) for row in rows for it in (subject(row),) for x in variants.of(it))
        flight: deque[tuple[list[tuple[int, Subject, Floats]], Callable[[], Outputs]]] = deque()
        for piece in _batched(pieces, batch):
            chosen = [row for row, *_ in piece]
            flight.append((piece, submit(np.stack([x for *_, x in piece]), pass_plan, targets[chosen])))
            if len(flight) == IN_FLIGHT:
                done += gathered.take(*flight.popleft(), variants.asks)
                progress(done / total)
        while flight:
            done += gathered.take(*flight.popleft(), variants.asks)
            progress(done / total)
        gathered.close()
    maps = {item: np.stack([it.map for it in folded]) for item, folded in found.items()}
    return first.added(maps, {item: it for item, folded in found.items() if (it := _together(folded))})


class _Gathered:
    """The folds of the image whose variants come in; the one before is finished."""

    def __init__(self, methods: Sequence[Sampled], found: dict[Sampled, list[Folded]]) -> None:
        self._methods = methods
        self._found = found
        self._row = -1
        self._folds: dict[Sampled, Fold] = {}

    def take(self, piece: list[tuple[int, Subject, Floats]], wait: Callable[[], Outputs], asks: Map) -> int:
        outputs = wait()
        if outputs.scores is None:
            raise ValueError("a pass gave no scores")
        for (row, subject, _), map_, scores in zip(piece, outputs.maps[asks], outputs.scores, strict=True):
            if row != self._row:
                self.close()
                self._row, self._folds = row, {method: method.fold(subject) for method in self._methods}
            for fold in self._folds.values():
                fold.add(map_, scores)
        return len(piece)

    def close(self) -> None:
        for method, fold in self._folds.items():
            self._found[method].append(fold.result())
        self._folds = {}


def _together(folded: list[Folded]) -> Completeness | None:
    """What the images' completeness is as arrays (N,T)."""
    every = [it.completeness for it in folded if it.completeness]
    if not every:
        return None
    return Completeness(np.stack([it.baseline_scores for it in every]), np.stack([it.delta for it in every]))


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, size)), [])
