"""The bar on stderr of commands that work through many images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convlens.client.cli.terminal import err


@contextmanager
def image_bar(total: int) -> Iterator[Callable[[float], None]]:
    """Show a bar for the length of a `with`; give the function that sets how many of `total` images are done."""
    columns = TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("images", total=total)
        yield lambda done: bar.update(task, completed=done)
