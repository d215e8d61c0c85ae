"""Compare checkouts by turns: python -m bench.plane.compare [--call map] [--kind jpeg] [--rounds 50] CHECKOUT CHECKOUT…

Each checkout serves the model `null` by a `convlens up` of its own, and is called for a fraction of a second at a time,
in random order. So all meet the same disturbances, and a difference of a few per cent shows on a shared machine, where
medians of whole runs differ by more. Printed are the median time of each, per call or per image, and the median of the
ratios to the first checkout, with its standard error. All run in this environment, with its packages.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from bench.plane import service
from bench.plane.load import Workload
from bench.plane.subject import DidNotRun, Subject

PARTS: Final = ("proto", "jobs", "server", "worker", "client", "local")
IN_FLIGHT: Final = {"single": 1, "map": 256}
SECONDS: Final = {"single": 0.15, "map": 0.5}
"""Of a turn."""


def start(checkout: Path, folder: Path) -> Subject:
    """Start a service of a checkout, and a client of it. Raises DidNotRun."""
    if not (checkout / "client" / "convlens").is_dir():  # or the installed packages would be measured
        raise DidNotRun(f"{checkout} is no checkout of Convlens")
    paths = os.pathsep.join(str(checkout / part) for part in PARTS)
    return service.up(checkout.name, folder, env={"PYTHONPATH": paths})


def measure(subject: Subject, workload: Workload) -> float:
    """Return the median seconds of a call, or the mean seconds of an image where calls have many. Raises DidNotRun."""
    report = subject.run(workload).report
    if report.failed:
        raise DidNotRun(f"{subject.name}: {report.error}")
    return statistics.median(report.latencies) if report.latencies else 1 / report.rate


def main() -> None:
    """Print a line for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT")
    parser.add_argument("--call", choices=IN_FLIGHT, default="single")
    parser.add_argument("--kind", choices=("raw", "jpeg", "photo"), default="raw")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    checkouts = [path.resolve() for path in options.checkouts]
    call = options.call
    workload = Workload(options.kind, call, IN_FLIGHT[call], SECONDS[call])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            subjects = [stack.enter_context(closing(start(checkout, folder))) for checkout in checkouts]
            for subject in subjects:
                measure(subject, workload)
            times: list[list[float]] = [[] for _ in subjects]
            for _ in range(options.rounds):
                for place in random.sample(range(len(subjects)), len(subjects)):
                    times[place].append(measure(subjects[place], workload))
        except DidNotRun as reason:
            raise SystemExit(f"{parser.prog}: {reason}") from None
    for checkout, turns in zip(checkouts, times, strict=True):
        ratios = [turn / first for turn, first in zip(turns, times[0], strict=True)]
        error = 1.25 * statistics.pstdev(ratios) / math.sqrt(len(ratios))
        print(
            f"{statistics.median(turns) * 1e3:7.3f} ms   × {statistics.median(ratios):.3f} ± {error:.3f}   {checkout}"
        )


if __name__ == "__main__":
    main()
