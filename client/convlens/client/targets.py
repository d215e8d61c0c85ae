"""Targets: what of the network's output a map explains. Turned into the wire's messages here and only here."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence, Set, Sized
from dataclasses import dataclass
from typing import Any, Final, SupportsIndex

import numpy as np
import numpy.typing as npt

from convlens.client.errors import InvalidArgument
from convlens.v1 import spec_pb2


@dataclass(frozen=True, slots=True)
class TopK:
    """A target: the k units of the highest score, best first. Adds a target axis: (N,k,…)."""

    k: int


class _AllUnits:
    """The type of ALL_UNITS."""

    def __repr__(self) -> str:
        return "ALL_UNITS"


ALL_UNITS: Final = _AllUnits()
"""A target: the mean over all units, which is keras-vis's filter_indices=None."""

Integers = npt.NDArray[np.integer[Any]]
Target = SupportsIndex | str | TopK | _AllUnits | None
"""One image's: a unit's index, its label on the model's card, TopK, ALL_UNITS, or None for the predicted unit."""
Several = Sequence[SupportsIndex] | Sequence[str] | Integers
"""One image's: several units, each explained by itself. Adds a target axis, (N,T,…)."""
OneTarget = Target | Several
"""One image's."""
Targets = Target | Sequence[OneTarget] | Integers
"""One target for all images, or a list or array of integers, (N,) or (N,T), with one an image."""
MapTargets = Targets | Iterable[OneTarget]
"""One target for all images, or an iterable with one for each."""
AsyncMapTargets = MapTargets | AsyncIterable[OneTarget]
"""The targets of AsyncClient.map()."""
ItemTarget = spec_pb2.Target | InvalidArgument | None
"""An image's own target on the wire, or what is wrong with it; None where all share one."""
_ALLOWED: Final = (
    "an index, None (predicted), TopK(k), ALL_UNITS, a label; or a list or an array of integers with one of these an "
    "image, where an inner list has several units"
)
_NO_LISTS: Final = (str, bytes, bytearray, memoryview)


def targets_message(targets: Targets | Sequence[spec_pb2.Target], images: int) -> list[spec_pb2.Target]:
    """Targets of so many images on the wire. InvalidArgument for what is none, and for a list of another length."""
    plain = _plain(targets)
    if not isinstance(plain, Sequence) or isinstance(plain, _NO_LISTS):
        return [] if plain is None else [target_message(plain)]
    if len(plain) != images:
        raise uneven(len(plain), images)
    return [target_message(target) for target in plain]


def target_message(target: OneTarget | spec_pb2.Target) -> spec_pb2.Target:
    """One image's target on the wire, where it may be already. InvalidArgument for what is none."""
    plain = _plain(target)
    try:
        match plain:
            case spec_pb2.Target():
                return plain
            case None:
                return spec_pb2.Target(predicted=True)
            case TopK():
                return spec_pb2.Target(top_k=_index(plain.k))
            case _AllUnits():
                return spec_pb2.Target(all_units=True)
            case str():
                return spec_pb2.Target(label=plain)
            case [str(), *_]:
                return spec_pb2.Target(labels=spec_pb2.UnitLabels(values=plain))
            case [*units] if not isinstance(plain, memoryview):
                return spec_pb2.Target(indices=spec_pb2.UnitIndices(values=map(_index, units)))
        return spec_pb2.Target(index=_index(plain))
    except (TypeError, ValueError) as error:
        raise refused(target) from error


def units_of(target: spec_pb2.Target) -> int:
    """The length of the target axis that a target makes; 0 for none."""
    match target.WhichOneof("kind"):
        case "indices":
            return len(target.indices.values)
        case "labels":
            return len(target.labels.values)
        case "top_k":
            return target.top_k
    return 0


def one_an_image(targets: Any, images: object) -> Any:
    """The targets of map(), an Iterable or AsyncIterable, where each image has its own; None where all share one.

    InvalidArgument for what is no target, and for another number of them than of images where both are known.
    """
    plain = _plain(targets)
    if not isinstance(plain, Iterable | AsyncIterable) or isinstance(plain, _NO_LISTS):
        targets_message(plain, 1)
        return None
    if isinstance(plain, Mapping | Set):
        raise refused(plain)
    if isinstance(plain, Sized) and isinstance(images, Sized) and len(plain) != len(images):
        raise uneven(len(plain), len(images))
    return plain


def checked_target(target: Any) -> spec_pb2.Target | InvalidArgument:
    """One image's target on the wire, or what is wrong with it."""
    try:
        return target_message(target)
    except InvalidArgument as error:
        return error


def uneven(targets: int | str, images: int | str) -> InvalidArgument:
    """What is raised for another number of targets than of images."""
    return InvalidArgument(
        f"target has {targets} {'entry' if targets == 1 else 'entries'} for {images} image{'s' * (images != 1)}; "
        "allowed: one target for all images, which is no list, or one an image",
        field="target",
    )


def refused(target: object) -> InvalidArgument:
    """What is raised for what is no target."""
    return InvalidArgument(f"target {reprlib.repr(target)} is none; allowed: {_ALLOWED}", field="target")


def _index(unit: Any) -> int:
    if isinstance(unit, bool):
        raise TypeError
    return operator.index(unit)


def _plain(target: Any) -> Any:
    """Arrays and tensors as integers, strings, and lists of these; all else as it is. InvalidArgument for others."""
    if isinstance(target, str) or not hasattr(target, "__array__"):
        return target
    array = np.asarray(target)
    if array.dtype.kind not in "iuUO":
        raise InvalidArgument(
            f"target is a {array.dtype} array {array.shape}; allowed: arrays of integers, (N,) or (N,T), or of labels",
            field="target",
        )
    return array.tolist()
