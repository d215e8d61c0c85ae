"""The row at a GPU's pace: is a simulated device kept busy, and are two of them twice as fast?

The device takes 2 ms a batch and 1 ms an image. Its busy time is computed from the batch sizes that results report.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from bench.plane import service
from bench.plane.contest import Case, Result
from bench.plane.load import Workload
from bench.plane.rows.bench import Bench
from bench.plane.subject import Subject
from bench.plane.table import Line

BATCH_SECONDS: Final = 0.002
IMAGE_SECONDS: Final = 0.001
ONE: Final = "Convlens, a paced device"
TWO: Final = "Convlens, two paced devices"
WIDE: Final = "Convlens, a paced device, batches of 32"
MODELS: Final = ("null=null,device_ms=2+1",)
IN_FLIGHT: Final = 256
SECONDS: Final = 4
"""Times as long as other rows, so that filling and draining the pipeline take little of it."""


def device(bench: Bench) -> None:
    """Run one worker with default and with larger batches, and two workers."""
    flags = {ONE: (), WIDE: ("--max-batch-size", "32"), TWO: ("--workers", "2")}
    services = {name: _starter(name, *arguments) for name, arguments in flags.items()}
    workload = Workload("jpeg", "map", IN_FLIGHT, bench.seconds * SECONDS)
    with bench.running(services) as subjects:
        results = bench.contest([Case(name, subject, workload) for name, subject in subjects.items()])
    by_service = {result.case.service: result for result in results}
    for name, batches in ((ONE, "of 8, the default"), (WIDE, "of 32")):
        if name in by_service:
            what = f"a device of 2 ms a batch and 1 ms an image, batches {batches}: share of time that it is busy"
            bench.lines.append(Line(what, f"{by_service[name].rate:,.0f}/s", "", busy(by_service[name]), 0.95))
    if ONE in by_service and TWO in by_service:
        one, two = by_service[ONE], by_service[TWO]
        what = "two such devices, one server: rate of two / rate of one"
        bench.lines.append(Line(what, f"{two.rate:,.0f}/s", f"{one.rate:,.0f}/s (ours)", two.rate / one.rate, 1.8))


def _starter(name: str, *flags: str) -> Callable[[Path], Subject]:
    return lambda folder: service.up(name, folder, *flags, models=MODELS)


def busy(result: Result) -> float:
    """Return the share of a round's time that one device computed, the rounds' median."""
    return median(
        sum(IMAGE_SECONDS + BATCH_SECONDS / size for size in measured.report.batch_sizes) / measured.report.seconds
        for measured in result.rounds
    )
