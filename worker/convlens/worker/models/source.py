"""Parse the value of a --model flag: NAME=SOURCE[,option=value…]."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from convlens.v1 import model_pb2
from convlens.worker.engine.precision import PRECISIONS as ENGINE_PRECISIONS
from convlens.worker.engine.preprocess import PREPROCESS
from convlens.worker.models import labels as label_files
from convlens.worker.models.files.formats import SUFFIXES, looks_like_path
from convlens.worker.models.model_protocol import ModelUnavailable

log = logging.getLogger(__name__)

PRECISIONS: Final = {name: model_pb2.Precision.Value(f"PRECISION_{name.upper()}") for name in ENGINE_PRECISIONS}
"""By the engine's name of a precision: the card's."""
MAX_SIZE: Final = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """One model of the settings."""

    name: str
    kind: str
    """A key of loaders.LOADERS."""
    argument: str = ""
    """The seed of random, or the path of a file or folder."""
    preprocess: str | None = None
    """A key of engine.preprocess.PREPROCESS; None: chosen by input_scheme.py."""
    mean: tuple[float, ...] | None = None
    """With `std`, instead of `preprocess`: (pixel − mean) / std, in 0…255, one value a channel or for all."""
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    """(height, width) of the input, for a model that takes any."""
    output: str | None = None
    """The output layer to explain, of a model that has several."""
    labels: Path | None = None
    """A label file; see labels.py."""
    precision: str = "float32"
    """A key of PRECISIONS."""
    device_ms: tuple[float, float] = (0.0, 0.0)
    """Of null: milliseconds a batch and an image that the simulated device takes."""


def parse(flag: str) -> Source:
    """Parse the value of a --model flag. Raises ModelUnavailable, which says what is wrong and what is allowed.

    A path with commas is quoted, NAME="a,b.keras",labels=l.txt, or unquoted where it exists.
    """
    try:
        return _parse(flag)
    except _InvalidFlag as error:
        raise ModelUnavailable(f"--model {flag!r}: {error}") from error


class _InvalidFlag(ValueError):
    """A --model flag that is wrong; the message says how."""


def _parse(flag: str) -> Source:
    name, _, rest = flag.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or not rest:
        raise _InvalidFlag("NAME=SOURCE is needed, NAME of letters, digits, '.', '_', '-', 64 characters at most")
    source, options = _split_options(rest)
    kind, argument = _parse_kind(source)
    parsed: dict[str, Any] = {}
    for key, value in options:
        reader = _OPTIONS.get(key)
        if reader is None or not value:
            piece = f"{key}={value}" if value or key in _OPTIONS else key
            raise _InvalidFlag(f"no option {piece!r}; allowed: {', '.join(_OPTIONS)}, each =value")
        if key in _ONLY and kind != _ONLY[key][0]:
            raise _InvalidFlag(f"{key} is an option of {_ONLY[key][1]} alone")
        if key in parsed:
            raise _InvalidFlag(f"{key} is given twice")
        parsed[key] = reader(value)
    return Source(name, kind, argument, **(parsed | _scale_to_255(name, parsed)))


def read_labels(source: Source, units: int) -> list[str]:
    """Read the labels of a source; empty without a label file. Raises ModelUnavailable unless there are `units`."""
    if source.labels is None:
        return []
    try:
        labels = label_files.read(source.labels)
    except (OSError, label_files.WrongLabels) as error:
        raise ModelUnavailable(f"model {source.name!r}: cannot read labels {source.labels}: {error}") from error
    if len(labels) != units:
        raise ModelUnavailable(
            f"model {source.name!r}: {source.labels} has {len(labels)} labels, the model {units} units"
        )
    return labels


def _split_options(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Split SOURCE[,option=value…] into the source and (option, value) pairs. Quoted values may contain commas."""
    if _exists(text):
        return text, []
    pieces = _split_at_commas(text)
    # the source ends at its quote; else it is the longest existing path, else the shortest with a model's suffix
    ends = range(1, len(pieces) + 1)
    sources = {end: ",".join(pieces[:end]) for end in ends}
    existing = [end for end in ends if _exists(sources[end])]
    suffixed = [end for end in ends if Path(sources[end]).suffix.lower() in SUFFIXES]
    end = 1 if text.startswith('"') else max(existing) if existing else min(suffixed) if suffixed else 1
    options: list[tuple[str, str]] = []
    for piece in pieces[end:]:
        key, _, value = piece.partition("=")
        if options and options[-1][0] in {"mean", "std"} and _NUMBER.fullmatch(piece):  # mean=R,G,B
            options[-1] = options[-1][0], f"{options[-1][1]}:{piece}"
        else:
            options.append((key, value))
    return sources[end], options


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas outside double quotes, and remove the quotes."""
    pieces = [""]
    is_quoted = False
    for character in text:
        if character == '"':
            is_quoted = not is_quoted
        elif character == "," and not is_quoted:
            pieces.append("")
        else:
            pieces[-1] += character
    if is_quoted:
        raise _InvalidFlag("a double quote is not closed")
    return pieces


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, no home directory, a NUL character
        return False


def _parse_kind(source: str) -> tuple[str, str]:
    kind, _, argument = source.partition(":")
    if kind == "random" and re.fullmatch(r"\d{1,9}", argument):
        return kind, argument
    if source in {"shapes", "imagenet", "null"}:
        return source, ""
    if re.match(r"[a-z][a-z0-9+.-]*://", source, re.IGNORECASE):
        raise _InvalidFlag(f"{source!r} is a URL; download the file and give its path")
    if looks_like_path(source) or source.startswith("~") or _exists(source):
        return "file", str(_parse_path(source))
    raise _InvalidFlag(
        f"no source {source!r}; allowed: shapes, imagenet, null, random:SEED, a .keras, .h5 or .hdf5 "
        "file, a SavedModel folder"
    )


def _parse_path(value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise _InvalidFlag(f"{value!r}: {error}") from error


def _choice(what: str, allowed: tuple[str, ...]) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in allowed:
            raise _InvalidFlag(f"no {what} {value!r}; allowed: {', '.join(allowed)}")
        return value

    return read


def _channels(what: str) -> Callable[[str], tuple[float, ...]]:
    def read(value: str) -> tuple[float, ...]:
        parts = value.split(":")
        if len(parts) not in {1, 3} or not all(map(_NUMBER.fullmatch, parts)):
            raise _InvalidFlag(f"{what} is {value!r}; R:G:B is needed, such as 123.68:116.779:103.939, or one number")
        values = tuple(map(float, parts))
        if what == "std" and min(values) <= 0:
            raise _InvalidFlag(f"std is {value!r}; numbers above 0 are needed")
        return values

    return read


def _scale_to_255(name: str, options: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return both `mean` and `std` for pixels in 0…255; empty where neither is given."""
    if "mean" not in options and "std" not in options:
        return {}
    if "preprocess" in options:
        raise _InvalidFlag("preprocess and mean or std exclude each other")
    mean, std = options.get("mean", (0.0,)), options.get("std", (1.0,))
    if set(mean) == {0.0} and set(std) == {1.0}:
        raise _InvalidFlag(
            "mean 0 and std 1 may be of pixels in 0…1 or in 0…255; say preprocess=unit or preprocess=none"
        )
    if max(map(abs, mean)) > 1 or max(std) > 1:
        if set(std) != {1.0} and max(std) <= 1:
            raise _InvalidFlag("mean is of pixels in 0…255 and std of pixels in 0…1; give both in 0…255")
        if any(mean) and max(map(abs, mean)) <= 1:
            raise _InvalidFlag("mean is of pixels in 0…1 and std of pixels in 0…255; give both in 0…255")
        return {"mean": mean, "std": std}
    mean, std = (tuple(value * 255 for value in values) for values in (mean, std))
    log.warning(
        "model=%s: mean and std are taken as of pixels in 0…1; in 0…255 they are mean=%s,std=%s",
        name,
        *(":".join(f"{value:g}" for value in values) for values in (mean, std)),
    )
    return {"mean": mean, "std": std}


def _parse_size(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", value)
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(1 <= side <= MAX_SIZE for side in size):
        raise _InvalidFlag(f"size is {value!r}; HEIGHTxWIDTH is needed, such as 224x224, each 1 to {MAX_SIZE}")
    return size


def _parse_device_ms(value: str) -> tuple[float, float]:
    batch, _, image = value.partition("+")
    try:
        times = float(batch), float(image)
    except ValueError:
        times = (-1.0, -1.0)
    if not all(0 <= time < math.inf for time in times):
        raise _InvalidFlag(f"device_ms is {value!r}; A+B is needed, milliseconds a batch and an image")
    return times


_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_OPTIONS: Final[dict[str, Callable[[str], object]]] = {
    "preprocess": _choice("preprocess", tuple(PREPROCESS)),
    "mean": _channels("mean"),
    "std": _channels("std"),
    "size": _parse_size,
    "output": lambda value: value,
    "labels": _parse_path,
    "precision": _choice("precision", tuple(PRECISIONS)),
    "device_ms": _parse_device_ms,
}
_ONLY: Final = {
    "device_ms": ("null", "the source null"),
    "size": ("file", "model files"),
    "output": ("file", "model files"),
}
"""Options of one kind of source alone, with its name in messages."""
