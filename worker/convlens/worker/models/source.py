"""NAME=SOURCE[,option=value…]: what the words of a --model flag mean."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from convlens.v1 import model_pb2
from convlens.worker.models import labels as label_files
from convlens.worker.models.files.formats import is_path_of_a_model
from convlens.worker.models.model_protocol import ModelUnavailable

log = logging.getLogger(__name__)

PREPROCESS: Final = ("caffe", "tf", "torch", "unit", "none")
PRECISIONS: Final = {
    "float32": model_pb2.PRECISION_FLOAT32,
    "bfloat16": model_pb2.PRECISION_BFLOAT16,
    "tf32": model_pb2.PRECISION_TF32,
    "float16": model_pb2.PRECISION_FLOAT16,
}
"""Those of the engine, as a card says them."""
MAX_SIZE: Final = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """One model, as it was asked for."""

    name: str
    kind: str
    """A key of loaders.LOADERS."""
    argument: str = ""
    """random's seed, or the path of the file or folder."""
    preprocess: str | None = None
    """A key of engine.preprocess.PREPROCESS; None: what the kind or the file says, else an assumption."""
    mean: tuple[float, ...] | None = None
    """With `std`, in the place of `preprocess`: (RGB − mean) / std, in 0…255, a value a channel or one for all."""
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    """(height, width) of the input, for a model that takes any."""
    output: str | None = None
    """The output layer to explain, of a model that has several."""
    labels: Path | None = None
    """A file of labels; see labels.py."""
    precision: str = "float32"
    """A key of PRECISIONS."""
    device_ms: tuple[float, float] = (0.0, 0.0)
    """null: milliseconds a batch and an image that a pretended device takes."""


def parse(word: str) -> Source:
    """The source that `word` names. ModelUnavailable says which part of it is wrong and what is allowed.

    A path with commas is quoted, NAME="a,b.keras",labels=l.txt, or taken as it is where it is there.
    """
    name, _, rest = word.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or not rest:
        raise ModelUnavailable(
            f"--model {word!r}: NAME=SOURCE is needed, NAME of letters, digits, '.', '_', '-', 64 characters at most"
        )
    source, options = _parted(word, rest)
    kind, argument = _kind(word, source)
    found: dict[str, Any] = {}
    for key, value in options:
        reader = _OPTIONS.get(key)
        if reader is None or not value:
            piece = f"{key}={value}" if value or key in _OPTIONS else key
            raise ModelUnavailable(
                f"--model {word!r}: no option {piece!r}; allowed: {', '.join(_OPTIONS)}, each =value"
            )
        if key in _ONLY and kind != _ONLY[key][0]:
            raise ModelUnavailable(f"--model {word!r}: {key} is an option of {_ONLY[key][1]} alone")
        if key in found:
            raise ModelUnavailable(f"--model {word!r}: {key} is given twice")
        found[key] = reader(word, value)
    return Source(name, kind, argument, **(found | _scaled(word, name, found)))


def read_labels(source: Source, units: int) -> list[str]:
    """The labels of a source's file; none where it names no file."""
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


def _parted(word: str, rest: str) -> tuple[str, list[tuple[str, str]]]:
    """The source, and each option's key and value. Quoted values may have commas."""
    if _is_there(rest):
        return rest, []
    pieces = _split(word, rest)
    # what is quoted; else the longest path that is there, the first that looks like a model's, what is before a comma
    ends = range(1, len(pieces) + 1)
    joined = {end: ",".join(pieces[:end]) for end in ends}
    there = [end for end in ends if _is_there(joined[end])]
    like = [end for end in ends if Path(joined[end]).suffix.lower() in {".keras", ".h5", ".hdf5"}]
    end = 1 if rest.startswith('"') else max(there) if there else min(like) if like else 1
    options: list[tuple[str, str]] = []
    for piece in pieces[end:]:
        key, _, value = piece.partition("=")
        if options and options[-1][0] in {"mean", "std"} and _NUMBER.fullmatch(piece):  # mean=R,G,B
            options[-1] = options[-1][0], f"{options[-1][1]}:{piece}"
        else:
            options.append((key, value))
    return joined[end], options


def _split(word: str, text: str) -> list[str]:
    """`text` cut at the commas that are not between double quotes; the quotes are taken away."""
    pieces = [""]
    quoted = False
    for character in text:
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            pieces.append("")
        else:
            pieces[-1] += character
    if quoted:
        raise ModelUnavailable(f"--model {word!r}: a double quote is not closed")
    return pieces


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, no home, a NUL: no path of anything
        return False


def _kind(word: str, source: str) -> tuple[str, str]:
    kind, _, argument = source.partition(":")
    if kind == "random" and re.fullmatch(r"\d{1,9}", argument):
        return kind, argument
    if source in {"shapes", "imagenet", "null"}:
        return source, ""
    if re.match(r"[a-z][a-z0-9+.-]*://", source, re.IGNORECASE):
        raise ModelUnavailable(f"--model {word!r}: {source!r} is a URL; download the file and give its path")
    if is_path_of_a_model(source) or source.startswith("~") or _is_there(source):
        return "file", str(_path(word, source))
    raise ModelUnavailable(
        f"--model {word!r}: no source {source!r}; allowed: shapes, imagenet, null, random:SEED, a .keras, .h5 or .hdf5 "
        "file, a SavedModel folder"
    )


def _path(word: str, value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ModelUnavailable(f"--model {word!r}: {value!r}: {error}") from error


def _choice(what: str, allowed: tuple[str, ...]) -> Callable[[str, str], str]:
    def read(word: str, value: str) -> str:
        if value not in allowed:
            raise ModelUnavailable(f"--model {word!r}: no {what} {value!r}; allowed: {', '.join(allowed)}")
        return value

    return read


def _channels(what: str) -> Callable[[str, str], tuple[float, ...]]:
    def read(word: str, value: str) -> tuple[float, ...]:
        parts = value.split(":")
        if len(parts) not in {1, 3} or not all(_NUMBER.fullmatch(it) for it in parts):
            raise ModelUnavailable(
                f"--model {word!r}: {what} is {value!r}; R:G:B is needed, such as 123.68:116.779:103.939, or one number"
            )
        found = tuple(float(it) for it in parts)
        if what == "std" and min(found) <= 0:
            raise ModelUnavailable(f"--model {word!r}: std is {value!r}; numbers above 0 are needed")
        return found

    return read


def _scaled(word: str, name: str, found: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` in 0…255, both; nothing where neither is given."""
    if "mean" not in found and "std" not in found:
        return {}
    if "preprocess" in found:
        raise ModelUnavailable(f"--model {word!r}: preprocess and mean or std exclude each other")
    mean, std = found.get("mean", (0.0,)), found.get("std", (1.0,))
    if set(mean) == {0.0} and set(std) == {1.0}:
        raise ModelUnavailable(
            f"--model {word!r}: mean 0 and std 1 may be of pixels in 0…1 or in 0…255; say preprocess=unit or "
            "preprocess=none"
        )
    if max(map(abs, mean)) > 1 or max(std) > 1:
        if set(std) != {1.0} and max(std) <= 1:
            raise ModelUnavailable(
                f"--model {word!r}: mean is of pixels in 0…255 and std of pixels in 0…1; give both in 0…255"
            )
        if any(mean) and max(map(abs, mean)) <= 1:
            raise ModelUnavailable(
                f"--model {word!r}: mean is of pixels in 0…1 and std of pixels in 0…255; give both in 0…255"
            )
        return {"mean": mean, "std": std}
    mean, std = (tuple(it * 255 for it in values) for values in (mean, std))
    log.warning(
        "model=%s: mean and std are taken as of pixels in 0…1; in 0…255 they are mean=%s,std=%s",
        name,
        *(":".join(f"{it:g}" for it in values) for values in (mean, std)),
    )
    return {"mean": mean, "std": std}


def _size(word: str, value: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", value)
    size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not all(1 <= it <= MAX_SIZE for it in size):
        raise ModelUnavailable(
            f"--model {word!r}: size is {value!r}; HEIGHTxWIDTH is needed, such as 224x224, each 1 to {MAX_SIZE}"
        )
    return size


def _device_ms(word: str, value: str) -> tuple[float, float]:
    batch, _, image = value.partition("+")
    try:
        found = float(batch), float(image)
    except ValueError:
        found = (-1.0, -1.0)
    if not all(0 <= it < math.inf for it in found):
        raise ModelUnavailable(
            f"--model {word!r}: device_ms is {value!r}; A+B is needed, milliseconds a batch and an image"
        )
    return found


_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_OPTIONS: Final[dict[str, Callable[[str, str], object]]] = {
    "preprocess": _choice("preprocess", PREPROCESS),
    "mean": _channels("mean"),
    "std": _channels("std"),
    "size": _size,
    "output": lambda _, value: value,
    "labels": _path,
    "precision": _choice("precision", tuple(PRECISIONS)),
    "device_ms": _device_ms,
}
_ONLY: Final = {
    "device_ms": ("null", "the source null"),
    "size": ("file", "model files"),
    "output": ("file", "model files"),
}
"""Options of one kind of source, and how that is called."""
