"""Perturbation methods: explanations computed from many perturbed copies of an image.

Noisy copies, points along a path from a baseline, copies with a patch covered. Each copy is one more image of an
ordinary pass, so that memory is bounded by the batch, and methods over the same copies (SmoothGrad and VarGrad,
integrated gradients and XRAI) share their passes. `methods` has one small file a method. Imports no TensorFlow.
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

MAX_PASSES_IN_FLIGHT: Final = 2
"""Passes submitted at once, so that copies are generated while the device computes."""

T = TypeVar("T")
Images = npt.NDArray[np.generic]
Submit = Callable[[Images, Plan, Ints], Callable[[], Outputs]]
"""Starts a pass of images (n,H,W,C), a plan and targets (n,T); returns a function that waits for its outputs."""


@dataclass(frozen=True, slots=True)
class Original:
    """An unperturbed image with the outputs of its first pass."""

    image: Floats
    """(H,W,C), RGB or grey in 0…255."""
    maps: Mapping[Map, Floats]
    """The method's `required_maps`, without the batch axis."""
    scores: Floats
    """(T,)"""
    preprocess: Preprocess


class Perturbation(Hashable, Protocol):
    """A way to perturb an image. A value: methods with equal perturbations share passes."""

    @property
    def evaluated_map(self) -> Map:
        """The map to compute of each copy."""

    def count(self, original: Original) -> int:
        """Count the copies that `generate` yields."""

    def generate(self, original: Original) -> Iterator[Floats]:
        """Yield the perturbed copies, (H,W,C) each, in a fixed order."""


@dataclass(frozen=True, slots=True)
class MethodResult:
    """The explanation of one image by a perturbation method."""

    map: Floats
    """(T,…)"""
    completeness: Completeness | None = None
    """(T,) each, of a method that distributes a difference of scores over the pixels."""


class Accumulator(Protocol):
    """Reduces the evaluations of one image's copies to a map."""

    def add(self, evaluation: Floats, scores: Floats) -> None:
        """Add the next copy's `evaluated_map`, (T,…), and its scores, (T,)."""

    def result(self) -> MethodResult:
        """Return the explanation, once all copies are added."""


class PerturbationMethod(Hashable, Protocol):
    """A perturbation method with its options; requested beside the maps of a single pass."""

    @property
    def perturbation(self) -> Perturbation:
        """The copies that it evaluates."""

    @property
    def required_maps(self) -> tuple[Map, ...]:
        """Maps of the original that it reads."""

    def accumulate(self, original: Original) -> Accumulator:
        """Start the reduction for one image."""


RequestedArray = Map | PerturbationMethod
"""One array of a result: a map of a single pass, or a perturbation method's."""


def plan_passes(requested: Iterable[RequestedArray]) -> tuple[tuple[Map, ...], tuple[PerturbationMethod, ...]]:
    """Return the maps of the first pass, which resolves and scores the targets, and the methods that need more."""
    maps: dict[Map, None] = {}
    methods: list[PerturbationMethod] = []
    for item in requested:
        if isinstance(item, Map):
            maps[item] = None
        else:
            methods.append(item)
            maps |= dict.fromkeys((Score(), *item.required_maps))
    return tuple(maps), tuple(methods)


def run_methods(
    first: Outputs,
    images: Images,
    plan: Plan,
    methods: Sequence[PerturbationMethod],
    preprocess: Preprocess,
    submit: Submit,
    batch_size: int,
    progress: Callable[[float], None] = lambda _: None,
) -> Outputs:
    """Add the maps (N,T,…) of `methods` to `first`, the outputs of `plan` on `images` (N,H,W,C).

    Each pass has up to `batch_size` images. `progress` is called with the completed share of them, 0…1. Raises
    ValueError for a first pass without scores, and whatever `submit` raises.
    """
    if first.targets is None or first.scores is None:
        raise ValueError("the first pass must score targets; plan the maps that plan_passes() gives")
    targets, scores = first.targets, first.scores

    def original_of(row: int) -> Original:
        maps = {item: array[row] for item, array in first.maps.items()}
        return Original(images[row].astype(np.float32), maps, scores[row], preprocess)

    by_perturbation: dict[Perturbation, list[PerturbationMethod]] = {}
    for method in methods:
        by_perturbation.setdefault(method.perturbation, []).append(method)
    rows = range(len(images))
    total = sum(perturbation.count(original_of(row)) for perturbation in by_perturbation for row in rows)
    done = 0
    results: dict[PerturbationMethod, list[MethodResult]] = {method: [] for method in methods}
    for perturbation, sharing in by_perturbation.items():
        pass_plan = replace(plan, maps=(perturbation.evaluated_map,), predictions=0)
        reduction = _Reduction(sharing, perturbation.evaluated_map, results)
        copies = (
            (row, original, copy)
            for row in rows
            for original in (original_of(row),)
            for copy in perturbation.generate(original)
        )
        in_flight: deque[tuple[list[tuple[int, Original, Floats]], Callable[[], Outputs]]] = deque()
        for batch in _batches(copies, batch_size):
            batch_targets = targets[[row for row, *_ in batch]]
            in_flight.append((batch, submit(np.stack([copy for *_, copy in batch]), pass_plan, batch_targets)))
            if len(in_flight) == MAX_PASSES_IN_FLIGHT:
                done += reduction.add(*in_flight.popleft())
                progress(done / total)
        while in_flight:
            done += reduction.add(*in_flight.popleft())
            progress(done / total)
        reduction.finish_image()
    maps = {method: np.stack([result.map for result in of_images]) for method, of_images in results.items()}
    completeness = {
        method: joined for method, of_images in results.items() if (joined := _join_completeness(of_images))
    }
    return first.with_maps(maps, completeness)


class _Reduction:
    """The accumulators of the image whose copies arrive; copies arrive image by image."""

    def __init__(
        self,
        methods: Sequence[PerturbationMethod],
        evaluated_map: Map,
        results: dict[PerturbationMethod, list[MethodResult]],
    ) -> None:
        self._methods = methods
        self._evaluated_map = evaluated_map
        self._results = results
        self._row = -1
        self._accumulators: dict[PerturbationMethod, Accumulator] = {}

    def add(self, batch: list[tuple[int, Original, Floats]], wait: Callable[[], Outputs]) -> int:
        """Wait for a batch's pass and add what it gives; return its number of copies."""
        outputs = wait()
        if outputs.scores is None:
            raise ValueError("a pass gave no scores")
        evaluations = outputs.maps[self._evaluated_map]
        for (row, original, _), evaluation, scores in zip(batch, evaluations, outputs.scores, strict=True):
            if row != self._row:
                self.finish_image()
                self._row = row
                self._accumulators = {method: method.accumulate(original) for method in self._methods}
            for accumulator in self._accumulators.values():
                accumulator.add(evaluation, scores)
        return len(batch)

    def finish_image(self) -> None:
        """Append the results of the current image, if there is one."""
        for method, accumulator in self._accumulators.items():
            self._results[method].append(accumulator.result())
        self._accumulators = {}


def _join_completeness(results: list[MethodResult]) -> Completeness | None:
    """Stack the completeness of several images to arrays (N,T); None for a method without."""
    parts = [result.completeness for result in results if result.completeness]
    if not parts:
        return None
    return Completeness(np.stack([part.baseline_scores for part in parts]), np.stack([part.delta for part in parts]))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, size)), [])
