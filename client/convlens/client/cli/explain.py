"""Files through the server, several at once: pictures and arrays in a folder each, a line on stdout each."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import typer

from convlens.client import Client, ConvlensError, DeadlineExceeded, InvalidArgument, Progress, Result
from convlens.client.cli.as_json import print_json
from convlens.client.cli.options import MapOptions, TargetOptions
from convlens.client.cli.parsing import parse_target, parse_value_range
from convlens.client.cli.progress_bar import image_bar
from convlens.client.cli.server import connected
from convlens.client.cli.terminal import err, line, note, out, visible
from convlens.client.drawing import Style
from convlens.client.images import pack
from convlens.client.model_card import ModelCard
from convlens.client.options import Visualization
from convlens.client.sync_transport import wait_for

IN_FLIGHT: Final = 8
"""Images under way at once; the worker puts those that wait into one pass."""


def explain_files(
    paths: Sequence[Path],
    visualizations: Sequence[Visualization] | Callable[[ModelCard], Sequence[Visualization]],
    options: MapOptions,
    style: Style,
) -> None:
    """Compute the visualizations of every image and write the results below `options.out`; status 1 if any failed.

    `visualizations` may be a function of the model's card.
    """
    failed = 0
    target = parse_target(options.target if isinstance(options, TargetOptions) else None)
    value_range = parse_value_range(options.value_range)
    models_with_note = set[str]()
    shares = [0.0] * len(paths)
    """Of each image, how much of its job is done."""
    with connected() as client, image_bar(len(paths)) as set_done, _threads(client) as pool:

        def update(position: int, share: float) -> None:
            shares[position] = share
            set_done(sum(shares))

        supported = functools.cache(
            lambda: visualizations(served_card(client, options.model)) if callable(visualizations) else visualizations
        )

        def explain(position: int, path: Path) -> Result:
            def report(progress: Progress) -> None:
                update(position, progress.done)

            images = pack([path], value_range)  # refuses what is no image before the server is called
            return client.visualize(images, supported(), model=options.model, target=target, progress=report)

        futures = [pool.submit(explain, *each) for each in enumerate(paths)]
        outcomes = zip(paths, folder_names(paths), futures, strict=True)
        for position, (path, folder, future) in enumerate(outcomes):
            try:
                result = wait_for(future)
                written = result.save(options.out / folder, **asdict(style))
            except (ConvlensError, OSError) as error:
                if not is_of_one_image(error):
                    raise
                failed += 1
                update(position, 1.0)
                line(err, str(error).removeprefix(f"{path}: "), f"{path}:")
                if options.as_json:
                    print_json({"image": path, "error": str(error)})
                continue
            if result.preprocess_assumed and result.model not in models_with_note:
                models_with_note.add(result.model)
                note(assumption(result.model, result.preprocess))
            _print_result(path, result, written, as_json=options.as_json)
    if failed:
        raise typer.Exit(1)


def _print_result(path: Path, result: Result, written: Sequence[Path], *, as_json: bool) -> None:
    """Print the classes of an image and the files written for it."""
    if as_json:
        predictions = [asdict(prediction) for prediction in result.predictions[0]]
        print_json({
            "image": path, "job_id": result.job_id, "model": result.model, "predictions": predictions, "files": written,
        })  # fmt: skip
        return
    classes = ", ".join(map(str, result.predictions[0][:3]))
    files = ", ".join(map(str, written))
    line(out, visible(f"{path}: {classes} → {files}" if classes else f"{path}: → {files}"))


def assumption(model: str, preprocess: str) -> str:
    """Return the note on a model whose file does not say what its input means."""
    return f"note: model {model!r} does not say what its input means; {preprocess!r} is assumed (see convlens models)"


def is_of_one_image(error: Exception) -> bool:
    """Return False for an error that the other images would meet, too."""
    return not isinstance(error, ConvlensError) or isinstance(error, InvalidArgument | DeadlineExceeded)


def served_card(client: Client, model: str) -> ModelCard:
    """Return the card of the model, by default the server's; an empty one if none is served: the call will say so."""
    name = model or client.server_info().default_model
    return client.model(name) if name else ModelCard(name="")


@contextmanager
def _threads(client: Client) -> Iterator[ThreadPoolExecutor]:
    """Give threads to call `client` from; an error, or Ctrl-C, ends the calls that are under way."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            client._calls.transport.close(for_good=True)
            raise


def folder_names(paths: Sequence[Path]) -> list[str]:
    """Return a folder's name for each image: its stem, or its whole name if two have the same stem."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[i] = f"{name}-{seen[name]}"
    return names
