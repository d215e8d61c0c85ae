"""The row with the real network: the stock VGG16 through the service against the engine alone, in batches of eight."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean
from typing import Final

from bench.plane import processes, service
from bench.plane.contest import Case
from bench.plane.load import Workload
from bench.plane.rows.bench import Bench
from bench.plane.subject import Subject
from bench.plane.table import Line

BATCH: Final = 8
CALLS: Final = 3
"""Of eight images each, so that the next waits while one is computed."""
SERVICE: Final = "Convlens, VGG16"
ENGINE: Final = "engine alone"
SECONDS: Final = 4.0
MODELS: Final = ("null=random:1",)
"""The stock network under the name that clients use."""


def vgg16(bench: Bench) -> None:
    """Compare the rates of saliency maps."""
    services = {
        SERVICE: lambda folder: service.up(SERVICE, folder, "--max-batch-size", str(BATCH), models=MODELS),
        ENGINE: _engine,
    }
    with bench.running(services) as subjects:
        in_flight = {SERVICE: CALLS, ENGINE: 1}
        workloads = {name: Workload("raw", "eight", number, SECONDS) for name, number in in_flight.items()}
        results = bench.contest([Case(name, subject, workloads[name]) for name, subject in subjects.items()])
    by_service = {result.case.service: result for result in results}
    if len(by_service) == 2:
        ours, engine = by_service[SERVICE], by_service[ENGINE]
        what = f"stock VGG16, saliency, through the service (mean batch {fmean(ours.batch_sizes):.1f}) / {ENGINE}"
        bench.lines.append(
            Line(what, f"{ours.rate:.3f}/s", f"{engine.rate:.3f}/s", ours.rate / engine.rate, 0.97, form=".3f")
        )


def _engine(folder: Path) -> Subject:
    log = processes.new_log(folder, "engine")
    return Subject(ENGINE, [], [sys.executable, "-m", "bench.plane.engine"], log, {})
