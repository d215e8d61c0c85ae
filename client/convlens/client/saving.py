"""Results as files: a picture per image, and the arrays. A file is complete or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from convlens.client.drawing import Style
from convlens.client.figures import layer_figure, layer_names, map_figure, map_names, shared_limits

if TYPE_CHECKING:
    from convlens.client.result_data import ResultData


def save(result: ResultData, folder: Path, style: Style) -> list[Path]:
    """Write figures of maps and grids of layers as pictures, and all arrays as arrays.npz; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def write(name: str, content: bytes | Callable[[IO[bytes]], object]) -> None:
        written.append(folder / name)
        write_whole(written[-1], content)

    limits = shared_limits(result, style) if style.scale == "shared" else None
    count = len(result.explained)
    for image in range(count):
        tail = "" if count == 1 else f"_{image:03d}"
        if map_names(result):
            write(f"maps{tail}.png", map_figure(result, image, style, limits).encode())
        if layer_names(result):
            write(f"layerwise_output{tail}.jpg", layer_figure(result, image, style).encode("jpg"))
    write("arrays.npz", lambda file: np.savez(file, **arrays_by_file_name(result)))
    return written


def arrays_by_file_name(result: ResultData) -> dict[str, Any]:
    """Return the arrays by the names that they have in an .npz file, which are names of files themselves."""
    return {name.replace("/", "."): array for name, array in result.items()}


def write_whole(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file under another name, and give it its own when it is complete."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
