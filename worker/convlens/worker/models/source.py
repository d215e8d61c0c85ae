"""NAME=SOURCE[,option=value…]: what the words of a --model flag mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from convlens.v1 import model_pb2
from convlens.worker.models.served import ModelUnavailable

PREPROCESS: Final = ("caffe", "unit", "none")
PRECISIONS: Final = {
    "float32": model_pb2.PRECISION_FLOAT32,
    "bfloat16": model_pb2.PRECISION_BFLOAT16,
    "tf32": model_pb2.PRECISION_TF32,
    "float16": model_pb2.PRECISION_FLOAT16,
}
"""Those of the engine, as a card says them."""


@dataclass(frozen=True, slots=True)
class Source:
    """One model, as it was asked for."""

    name: str
    kind: str
    """A key of catalogue.KINDS."""
    argument: str = ""
    """random's seed, or the file's path."""
    preprocess: str | None = None
    """A key of engine.preprocess.PREPROCESS; None: what the kind or the file says, else an assumption."""
    mean: tuple[float, ...] | None = None
    """With `std`, in the place of `preprocess`: (RGB − mean) / std, in 0…255, a value a channel."""
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    """(height, width) of the input, for a model that takes any."""
    output: str | None = None
    """The output layer to explain, of a model that has several."""
    labels: Path | None = None
    """A text file with a label a line."""
    precision: str = "float32"
    """A key of PRECISIONS."""
    device_ms: tuple[float, float] = (0.0, 0.0)
    """null: milliseconds a batch and an image that a pretended device takes."""


def parse(word: str) -> Source:
    """The source that `word` names. ModelUnavailable says which part of it is wrong and what is allowed."""
    name, _, rest = word.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or not rest:
        raise ModelUnavailable(
            f"--model {word!r}: NAME=SOURCE is needed, NAME of letters, digits, '.', '_', '-', 64 characters at most"
        )
    source, *options = rest.split(",")
    kind, argument = _kind(word, source)
    found = {}
    for option in options:
        key, _, value = option.partition("=")
        reader = _OPTIONS.get(key)
        if reader is None or not value:
            raise ModelUnavailable(
                f"--model {word!r}: no option {option!r}; allowed: {', '.join(_OPTIONS)}, each =value"
            )
        if key == "device_ms" and kind != "null":
            raise ModelUnavailable(f"--model {word!r}: device_ms is an option of the source null alone")
        found[key] = reader(word, value)
    return Source(name, kind, argument, **found)  # type: ignore[arg-type]


def read_labels(source: Source, units: int) -> list[str]:
    """The labels of a source's file; none where it names no file."""
    if source.labels is None:
        return []
    try:
        labels = source.labels.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelUnavailable(f"model {source.name!r}: cannot read labels {source.labels}: {error}") from error
    if len(labels) != units:
        raise ModelUnavailable(
            f"model {source.name!r}: {source.labels} has {len(labels)} labels, the model {units} units"
        )
    return labels


def _kind(word: str, source: str) -> tuple[str, str]:
    kind, _, argument = source.partition(":")
    if kind == "random" and re.fullmatch(r"\d{1,9}", argument):
        return kind, argument
    if source in {"shapes", "imagenet", "null"}:
        return source, ""
    if source.endswith((".keras", ".h5")):
        return "file", source
    raise ModelUnavailable(
        f"--model {word!r}: no source {source!r}; allowed: shapes, imagenet, null, random:SEED, a file ending in "
        ".keras, .h5 or .weights.h5"
    )


def _preprocess(word: str, value: str) -> str:
    if value not in PREPROCESS:
        raise ModelUnavailable(f"--model {word!r}: no preprocess {value!r}; allowed: {', '.join(PREPROCESS)}")
    return value


def _precision(word: str, value: str) -> str:
    if value not in PRECISIONS:
        raise ModelUnavailable(f"--model {word!r}: no precision {value!r}; allowed: {', '.join(PRECISIONS)}")
    return value


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


_OPTIONS: Final[dict[str, Callable[[str, str], object]]] = {
    "preprocess": _preprocess,
    "labels": lambda _, value: Path(value),
    "precision": _precision,
    "device_ms": _device_ms,
}
