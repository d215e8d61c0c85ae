"""The context of a row: services to start, rounds to run, and where results go."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from bench.plane.contest import Case, Result, contest
from bench.plane.environments import NoEnvironment
from bench.plane.subject import DidNotRun, Subject
from bench.plane.table import Line


@dataclass(slots=True)
class Bench:
    """One run of the bench."""

    folder: Path
    """For logs and data; gone afterwards."""
    rounds: int
    seconds: float
    """Of one case in one round."""
    queued: int
    """Jobs that wait in the row `queued`."""
    lines: list[Line] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self, services: Mapping[str, Callable[[Path], Subject]]) -> Iterator[dict[str, Subject]]:
        """Start services for the duration of a `with`; those that fail are noted and left out."""
        with contextlib.ExitStack() as stack:
            subjects = {}
            for name, start in services.items():
                try:
                    subjects[name] = start(self.folder)
                except (DidNotRun, NoEnvironment, OSError, subprocess.SubprocessError) as error:
                    self.note(f"left out: {name}: {error}")
                else:
                    stack.callback(subjects[name].close)
            yield subjects

    def contest(self, cases: Sequence[Case]) -> list[Result]:
        """Run the cases and keep their results for the tables of costs and batches."""
        results = contest(cases, self.rounds)
        self.results += results
        return results

    @property
    def others(self) -> float:
        """The share of the machine that unrelated programs used; above a few hundredths, run again."""
        return fmean(result.others for result in self.results) if self.results else 0.0

    def note(self, text: str) -> None:
        """Print a note now and again below the tables."""
        print(text, file=sys.stderr, flush=True)
        self.notes.append(text)
