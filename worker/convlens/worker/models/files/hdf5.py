"""Read untrusted HDF5 files: no links to other files, no trust in declared sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py

LARGE_CHUNK: Final = 1 << 20
"""Elements of an HDF5 chunk."""
NUMBERS: Final = "biuf"
"""NumPy's dtype kinds of weights."""


class UnsafeFile(ValueError):
    """A file that refers to others, or that holds something else than numbers."""


@contextmanager
def open_safely(path: Path) -> Iterator[h5py.File]:
    """Open the file after checking that it refers to no other. Raises UnsafeFile, or OSError for what is no HDF5."""
    with h5py.File(path, "r") as file:
        _check(file)
        yield file


def read_attribute(group: h5py.Group, name: str) -> str | None:
    """Return a string attribute, stored as bytes or as a string."""
    value = group.attrs.get(name)
    return value.decode("utf-8") if isinstance(value, bytes) else None if value is None else str(value)


def read_names(group: h5py.Group, name: str) -> list[str]:
    """Return a list of names, which Keras splits into several attributes when it is long: name0, name1…"""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        parts = []
        while f"{name}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{name}{len(parts)}"])
    return [entry.decode("utf-8") if isinstance(entry, bytes) else str(entry) for part in parts for entry in part]


def list_datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Return every dataset below a group, by its path."""
    by_path: dict[str, h5py.Dataset] = {}

    def visit(path: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            by_path[path] = item

    group.visititems(visit)
    return by_path


def count_elements(group: h5py.Group) -> int:
    """Count the elements stored below a group; those that are declared and never written do not count."""
    return sum(
        min(data.size, data.id.get_storage_size() // data.dtype.itemsize) for data in list_datasets(group).values()
    )


def _check(file: h5py.File) -> None:
    # a visit ends at the first result that is not None
    link = file.visititems_links(lambda path, link: None if isinstance(link, h5py.HardLink) else path)
    if link is not None:
        raise UnsafeFile(f"{link!r} is a link to elsewhere, which Keras never writes; save the model again")
    for path, dataset in list_datasets(file).items():
        data: Any = dataset
        if data.is_virtual or data.external:
            raise UnsafeFile(f"the numbers of {path!r} are in another file, as Keras never does; save the model again")
        if data.id.get_create_plist().get_nfilters():
            raise UnsafeFile(f"the numbers of {path!r} are packed, as Keras never does; save the model again")
        if data.chunks and math.prod(data.chunks) > max(2 * data.size, LARGE_CHUNK):
            raise UnsafeFile(f"{path!r} is stored in pieces of {data.chunks}, for {data.shape}; save the model again")
        if data.dtype.kind not in NUMBERS and path.split("/", 1)[0] in {"model_weights", "layers"}:
            raise UnsafeFile(f"{path!r} holds {data.dtype}, no numbers; save the model again")
