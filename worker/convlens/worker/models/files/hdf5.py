"""HDF5 files that people send: read without following anything out of them, and without believing what they declare."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py

LARGE_CHUNK: Final = 1 << 20
"""Numbers."""
NUMBERS: Final = "biuf"
"""NumPy's kinds of what a weight may be; objects and texts are none."""


class UnsafeFile(ValueError):
    """A file that would have others read, or that holds something else than numbers."""


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, once it is sure that all it holds is in it. UnsafeFile otherwise, OSError for what is no HDF5."""
    with h5py.File(path, "r") as file:
        _check(file)
        yield file


def attribute(group: h5py.Group, name: str) -> str | None:
    """A text attribute, whether it was written as bytes or as a string."""
    value = group.attrs.get(name)
    return value.decode("utf-8") if isinstance(value, bytes) else None if value is None else str(value)


def names(group: h5py.Group, name: str) -> list[str]:
    """A list of names, which Keras parts over several attributes when it is long: name0, name1…"""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        parts = []
        while f"{name}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{name}{len(parts)}"])
    return [it.decode("utf-8") if isinstance(it, bytes) else str(it) for part in parts for it in part]


def datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Every dataset below a group, by its path."""
    found: dict[str, h5py.Dataset] = {}

    def visit(path: str, it: object) -> None:
        if isinstance(it, h5py.Dataset):
            found[path] = it

    group.visititems(visit)
    return found


def elements(group: h5py.Group) -> int:
    """The numbers that are really there below a group; one that is declared and never written counts for nothing."""
    return sum(min(it.size, it.id.get_storage_size() // it.dtype.itemsize) for it in datasets(group).values())


def _check(file: h5py.File) -> None:
    # a visit ends at the first that is not None
    link = file.visititems_links(lambda path, it: None if isinstance(it, h5py.HardLink) else path)
    if link is not None:
        raise UnsafeFile(f"{link!r} is a link to elsewhere, which Keras never writes; save the model again")
    for path, it in datasets(file).items():
        described: Any = it
        if described.is_virtual or described.external:
            raise UnsafeFile(f"the numbers of {path!r} are in another file, as Keras never does; save the model again")
        if described.id.get_create_plist().get_nfilters():
            raise UnsafeFile(f"the numbers of {path!r} are packed, as Keras never does; save the model again")
        if it.chunks and math.prod(it.chunks) > max(2 * it.size, LARGE_CHUNK):
            raise UnsafeFile(f"{path!r} is stored in pieces of {it.chunks}, for {it.shape}; save the model again")
        if it.dtype.kind not in NUMBERS and path.split("/", 1)[0] in {"model_weights", "layers"}:
            raise UnsafeFile(f"{path!r} holds {it.dtype}, no numbers; save the model again")
