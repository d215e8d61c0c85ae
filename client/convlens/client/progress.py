"""Progress of calls: the value that a callback receives, and the bar that `progress=True` shows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Self

from convlens.client.errors import InvalidArgument
from convlens.client.extras import require_extra
from convlens.client.job_status import JobState, JobStatus


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call has come, in images."""

    done: float
    """Images that are done. Those of a job that takes several passes per image count by their share of the passes."""
    total: int | None = None
    """Images in all; None where their number is not known."""
    state: JobState | None = None
    """The state of the job; None before the server has accepted it, and for map(), which runs several jobs."""

    @property
    def fraction(self) -> float | None:
        """The share of the images that is done, 0…1; None where their number is not known."""
        return None if self.total is None else self.done / max(self.total, 1)

    @classmethod
    def from_status(cls, status: JobStatus) -> Self:
        """Return the progress that the server reports of a job."""
        share = 1.0 if status.state is JobState.SUCCEEDED else status.progress
        return cls(share * status.images, status.images, status.state)


ProgressCallback = Callable[[Progress], object]
"""What is called at each step, by the thread or event loop that makes the call; an error in it ends the call."""

_BAR: Final = "{l_bar}{bar}| {n:,.0f}/{total:,} [{elapsed}<{remaining}, {rate_fmt}]"
"""tqdm's own, with whole numbers of images."""


def progress_reporter(progress: bool | ProgressCallback) -> AbstractContextManager[ProgressCallback | None]:
    """Return a context manager that gives the function to call at each step: a callback, a bar's, or None for none.

    InvalidArgument for anything but a bool or a function, MissingExtra for a bar without convlens-client[progress].
    """
    if callable(progress):
        return nullcontext(progress)
    if not isinstance(progress, bool):
        raise InvalidArgument(f"progress is {progress!r}; allowed: True, False, a function", field="progress")
    if not progress:
        return nullcontext(None)
    require_extra("progress", "progress=True")
    return _progress_bar()


@contextmanager
def _progress_bar() -> Iterator[ProgressCallback]:
    """Show a bar in a notebook or a terminal, on stderr; it stays when the call has ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets the bar of a terminal
        from tqdm.auto import tqdm
    bar: Any = None

    def show(progress: Progress) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=progress.total, unit="img", bar_format=_BAR if progress.total else None)
        bar.set_description_str(f"{progress.state}: " if progress.state else "", refresh=False)
        bar.update(progress.done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def image_counter(
    reporter: AbstractContextManager[ProgressCallback | None], total: int | None
) -> Iterator[Callable[[], None]]:
    """Give the function to call for each image that is done, which reports how many were."""
    done = 0

    def report() -> None:
        if callback:
            callback(Progress(done, total))

    def count_one() -> None:
        nonlocal done
        done += 1
        report()

    with reporter as callback:
        report()
        yield count_one


def count_of(images: object) -> int | None:
    """Return the number of images of an iterable or a batch; None for an iterator, which has none."""
    return len(images) if isinstance(images, Sized) else None
