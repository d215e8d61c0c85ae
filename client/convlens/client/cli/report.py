"""`convlens report`: one HTML page of many images, in bounded memory."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Final

import typer

from convlens.client import Client, InvalidArgument, ModelCard, Progress, Result, Visualization
from convlens.client.batching import ItemError
from convlens.client.cli.as_json import print_json
from convlens.client.cli.explain import assumption, is_of_one_image, served_card
from convlens.client.cli.models import card_facts
from convlens.client.cli.options import ReportOptions
from convlens.client.cli.parsing import parse_target, parse_value_range
from convlens.client.cli.progress_bar import image_bar
from convlens.client.cli.report_page import ReportPage
from convlens.client.cli.server import connected
from convlens.client.cli.terminal import err, line, note, out, visible
from convlens.client.connection import VERSION
from convlens.client.drawing import Style

SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp"})
"""Of the files that a folder stands for, in lower case."""


def write_report(
    paths: Sequence[Path],
    visualizations: Callable[[ModelCard], Sequence[Visualization]],
    options: ReportOptions,
    style: Style,
) -> None:
    """Write a page of what the images' maps show; status 1 if an image has no result."""
    images = [file for path in paths for file in image_files(path)]
    if not images:
        raise typer.BadParameter(f"no image files in {', '.join(map(str, paths))}", param_hint="IMAGES")
    value_range, target = parse_value_range(options.value_range), parse_target(options.target)
    folder = Path(os.path.commonpath([image.absolute().parent for image in images]))
    with connected() as client, ReportPage(folder, style, options.side) as page:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        card = served_card(client, options.model)
        chosen = visualizations(card)
        with image_bar(len(images)) as set_done:

            def report(progress: Progress) -> None:
                set_done(progress.done)

            outcomes = client.map(
                images, chosen, errors="return", model=options.model, target=target, value_range=value_range,
                progress=report,
            )  # fmt: skip
            for path, outcome in zip(images, outcomes, strict=True):
                _add(page, path, outcome)
        if card.preprocess_assumed:
            note(assumption(card.name, card.preprocess))
        title = f"What {card.name} looked at in {_images(page.count)}"
        page.write(options.out, title, {"folder": folder.name} | _facts(client, card, chosen, options, style))
    _print_outcome(options, page)
    if page.errors:
        raise typer.Exit(1)


def _add(page: ReportPage, path: Path, outcome: Result | ItemError) -> None:
    """Add an image to the page, with its result or its error. Raises an error that the other images would meet, too."""
    if isinstance(outcome, Result):
        try:
            page.add(path, outcome)
        except InvalidArgument as error:
            outcome = error
        else:
            return
    if not is_of_one_image(outcome):
        raise outcome
    page.errors.append((path, outcome))
    line(err, str(outcome).removeprefix(f"{path}: "), f"{path}:")


def image_files(path: Path) -> list[Path]:
    """Return the image files in a folder and below, sorted; a path that is no folder alone."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _facts(
    client: Client, card: ModelCard, chosen: Sequence[Visualization], options: ReportOptions, style: Style
) -> dict[str, object]:
    """Return all that a reader needs to make the page again, by name."""
    settings = {
        "maps": ", ".join(map(short_repr, chosen)),
        "target": options.target or "the predicted class",
        "value range": options.value_range,
        "pictures": ", ".join(f"{name}={value}" for name, value in asdict(style).items() if value is not None),
    }
    versions = {
        "made": f"{datetime.now().astimezone():%F %T %Z}",
        "Convlens": f"client {VERSION}, server {client.server_info().version}",
    }
    return {name: value for name, value in (card_facts(card) | settings | versions).items() if value}


def short_repr(visualization: Visualization) -> str:
    """Return the call that makes a visualization, without the parameters that have their defaults."""
    kind = type(visualization)
    given = []
    for name, parameter in inspect.signature(kind).parameters.items():
        value = getattr(visualization, name)
        if value != parameter.default and (value or parameter.default):  # an empty tuple stands for None
            given.append(f"{name}={value!r}")
    return f"{kind.__name__}({', '.join(given)})"


def _print_outcome(options: ReportOptions, page: ReportPage) -> None:
    if options.as_json:
        errors = [{"image": path, "error": str(error)} for path, error in page.errors]
        print_json({"file": options.out, "images": page.count, "errors": errors})
        return
    without = f", {len(page.errors)} without a result" if page.errors else ""
    line(out, visible(f"{options.out}: {_images(page.count)}{without}, {options.out.stat().st_size / 1e6:.1f} MB"))
