"""Targets: the units of the network whose score a map explains, and their messages on the wire."""

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
"""Target of one image: a unit's index or label, TopK, ALL_UNITS, or None for the predicted unit."""
Several = Sequence[SupportsIndex] | Sequence[str] | Integers
"""Target of one image: several units, each explained by itself. Adds a target axis, (N,T,…)."""
OneTarget = Target | Several
"""Target of one image."""
Targets = Target | Sequence[OneTarget] | Integers
"""One target for all images, or a list or array of integers, (N,) or (N,T), with one for each."""
MapTargets = Targets | Iterable[OneTarget]
"""One target for all images, or an iterable with one for each."""
AsyncMapTargets = MapTargets | AsyncIterable[OneTarget]
"""The targets of AsyncClient.map()."""
ItemTarget = spec_pb2.Target | InvalidArgument | None
"""The message of an image's own target, or what is wrong with it; None if all images share one."""
_ALLOWED: Final = (
    "an index, None (predicted), TopK(k), ALL_UNITS, a label; or a list or an array of integers with one of these an "
    "image, where an inner list has several units"
)
_NO_LISTS: Final = (str, bytes, bytearray, memoryview)


def targets_message(targets: Targets | Sequence[spec_pb2.Target], images: int) -> list[spec_pb2.Target]:
    """Return the messages of the targets of `images` images. InvalidArgument for invalid ones or another number."""
    plain = _plain(targets)
    if not isinstance(plain, Sequence) or isinstance(plain, _NO_LISTS):
        return [] if plain is None else [target_message(plain)]
    if len(plain) != images:
        raise uneven(len(plain), images)
    return [target_message(target) for target in plain]


def target_message(target: OneTarget | spec_pb2.Target) -> spec_pb2.Target:
    """Return the message of one image's target, which may be a message already. InvalidArgument for anything else."""
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
    """Return the length of the target axis that a target adds; 0 for none."""
    match target.WhichOneof("kind"):
        case "indices":
            return len(target.indices.values)
        case "labels":
            return len(target.labels.values)
        case "top_k":
            return target.top_k
    return 0


def one_an_image(targets: Any, images: object) -> Any:
    """Return the targets of map() if each image has its own, as an (asynchronous) iterable; None if all share one.

    InvalidArgument for invalid ones, and for another number of them than of images if both are known.
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
    """Return the message of one image's target, or what is wrong with it."""
    try:
        return target_message(target)
    except InvalidArgument as error:
        return error


def uneven(targets: int | str, images: int | str) -> InvalidArgument:
    """Return the error of another number of targets than of images."""
    return InvalidArgument(
        f"target has {targets} {'entry' if targets == 1 else 'entries'} for {images} image{'s' * (images != 1)}; "
        "allowed: one target for all images, which is no list, or one an image",
        field="target",
    )


def refused(target: object) -> InvalidArgument:
    """Return the error of an invalid target."""
    return InvalidArgument(f"target {reprlib.repr(target)} is none; allowed: {_ALLOWED}", field="target")


def _index(unit: Any) -> int:
    if isinstance(unit, bool):
        raise TypeError
    return operator.index(unit)


def _plain(target: Any) -> Any:
    """Convert arrays and tensors to integers, strings and lists of these. InvalidArgument for other dtypes."""
    if isinstance(target, str) or not hasattr(target, "__array__"):
        return target
    array = np.asarray(target)
    if array.dtype.kind not in "iuUO":
        raise InvalidArgument(
            f"target is a {array.dtype} array {array.shape}; allowed: arrays of integers, (N,) or (N,T), or of labels",
            field="target",
        )
    return array.tolist()
