"""`convlens model check FILE`: report how a worker would serve a model's file, or why it would refuse it.

The file is loaded as a worker loads it; nothing is served, and no Redis is needed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from convlens.jobs.runtime.command_line import make_group, run_group
from convlens.jobs.runtime.temporary import temporary_files
from convlens.v1 import model_pb2
from convlens.worker.models.model_protocol import ModelUnavailable
from convlens.worker.models.source import Source, parse

if TYPE_CHECKING:
    from convlens.worker.models.file import FileModel

SERVABLE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
NAME: Final = "checked"
SHOWN_LABELS: Final = 8


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """A model that can be served."""

    loaded: FileModel
    card: model_pb2.Model
    available: int
    """Bytes of memory that were available before it was loaded."""


app: Final = make_group("Look at models before they are served.")


@app.command("check")
def _check(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE[,option=value…]", show_default=False,
            help="A .keras, .h5 or .hdf5 file or a SavedModel folder, with the options of --model.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Load a model's file as a worker does, and say what would be served how, or why it would be refused.

    Exit status: 0 it can be served, 1 it is refused, 2 the command line is wrong.

    Example:
      convlens model check scan.keras,preprocess=unit,labels=scan.txt
    """
    raise typer.Exit(check(file, as_json=as_json))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit status: SERVABLE, REFUSED or USAGE."""
    return run_group(app, "convlens model", argv)


def check(file: str, *, as_json: bool) -> int:
    """Check a file, print what was learnt, and return SERVABLE, REFUSED or USAGE."""
    try:
        source = parse(f"{NAME}={file}")
    except ModelUnavailable as error:
        print(str(error).replace(f"--model {f'{NAME}={file}'!r}: ", ""), file=sys.stderr)
        return USAGE
    if source.kind != "file":
        print(
            f"{file!r} is no file; a .keras, .h5 or .hdf5 file or a SavedModel folder is needed",
            file=sys.stderr,
        )
        return USAGE
    try:
        with temporary_files("check"):
            checked = _load(source)
    except ModelUnavailable as error:
        reason = str(error).removeprefix(f"model {NAME!r}: ")
        refused = {"file": source.argument, "servable": False, "reason": reason}
        print(json.dumps(refused, ensure_ascii=False) if as_json else f"refused: {reason}")
        return REFUSED
    print(json.dumps(_as_json(source, checked), ensure_ascii=False) if as_json else _as_text(source, checked))
    return SERVABLE


def _load(source: Source) -> CheckedModel:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides TensorFlow's start-up messages
    from convlens.worker.models.file import read_model, serve
    from convlens.worker.models.files.memory_estimate import measure_available

    memory = measure_available()
    loaded = read_model(Path(source.argument), source.size)
    return CheckedModel(loaded, serve(source, loaded).card, memory)


def _as_json(source: Source, checked: CheckedModel) -> dict[str, object]:
    card, estimate = checked.card, checked.loaded.estimate
    return {
        "file": source.argument,
        "servable": True,
        "format": checked.loaded.format,
        "input_shape": list(card.input_shape),
        "preprocess": card.preprocess,
        "preprocess_assumed": card.preprocess_assumed,
        "preprocess_reason": card.preprocess_reason,
        "preprocess_mean": list(card.preprocess_mean),
        "preprocess_std": list(card.preprocess_std),
        "classes": card.classes,
        "labels": list(card.labels),
        "has_probability": card.has_probability,
        "score_layer": card.score_layer,
        "cam_layer": card.cam_layer,
        "methods": [method for method in card.methods if method not in card.unavailable_methods],
        "unavailable_methods": dict(card.unavailable_methods),
        "parameters": estimate.parameters,
        "memory_bytes": estimate.total,
        "digest": card.digest,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "shape": list(layer.shape),
                "rule": "taped" if layer.taped else "written",
            }
            for layer in card.layers
        ],
    }


def _as_text(source: Source, checked: CheckedModel) -> str:
    from convlens.worker.models.files.memory_estimate import BATCH, format_bytes

    card, estimate = checked.card, checked.loaded.estimate
    pixels = card.preprocess
    if card.preprocess_mean:
        pixels += f": mean {_join_numbers(card.preprocess_mean)}, std {_join_numbers(card.preprocess_std)}"
    if card.preprocess_reason:
        pixels += f" ({card.preprocess_reason})"
    labels = ", ".join(card.labels[:SHOWN_LABELS]) + (", …" if len(card.labels) > SHOWN_LABELS else "")
    memory = f"about {format_bytes(estimate.total)} with {BATCH} images at once"
    memory += f"; {format_bytes(checked.available)} are left here"
    rows = [
        ("format", checked.loaded.format),
        ("input", _join_shape(card.input_shape)),
        ("preprocess", pixels),
        ("classes", f"{card.classes or card.layers[-1].shape[-1]}{f': {labels}' if labels else ', without labels'}"),
        ("scores", f"{card.score_layer}, {'with' if card.has_probability else 'without'} probabilities"),
        ("CAM layer", card.cam_layer or "none: no convolution with an extent"),
        ("parameters", f"{estimate.parameters:,}"),
        ("memory", memory),
        *((f"not {method}", reason) for method, reason in sorted(card.unavailable_methods.items())),
    ]
    table = [
        (layer.name, layer.kind, _join_shape(layer.shape), "taped" if layer.taped else "written")
        for layer in card.layers
    ]
    return "\n".join(
        [
            f"{source.argument} can be served",
            "",
            *_align(rows),
            "",
            *_align([("layer", "kind", "output", "rule"), *table]),
        ]
    )


def _align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Align rows in columns, except for the last column."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  " + "  ".join([*(cell.ljust(w) for cell, w in zip(row[:-1], widths, strict=True)), row[-1]]) for row in rows
    ]


def _join_shape(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape))


def _join_numbers(values: Iterable[float]) -> str:
    return ":".join(f"{value:g}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
