"""Measured points, kept as JSON for the simulation (bench/README.md): written by the bench, read by simulate.py."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from bench.plane.contest import Result


@dataclass(frozen=True, slots=True)
class Point:
    """One case's medians."""

    service: str
    kind: str
    call: str
    in_flight: int
    images_a_job: int
    rate: float
    """Images a second."""
    median: float
    """Seconds of a call; 0 where calls cannot be distinguished."""
    batch: float
    """Images in a pass, the mean over images; 0 where the service does not report it."""
    bytes_an_image: float
    cpu: dict[str, float]
    """Seconds an image by process."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A run's points."""

    machine: str
    cores: int
    points: tuple[Point, ...]

    def find(self, service: str, kind: str, call: str, in_flight: int) -> Point | None:
        """Return the point of one case, if measured."""
        key = (service, kind, call, in_flight)
        return next((point for point in self.points if _key(point) == key), None)


def write(path: Path, results: Sequence[Result]) -> None:
    """Add the points of closed loops to a file, replacing those of the same cases."""
    points = {_key(point): point for point in (read(path).points if path.exists() else ())}
    points |= {_key(point): point for point in (_point(result) for result in results if not result.case.workload.rate)}
    measurements = Measured(platform.machine(), os.cpu_count() or 1, tuple(points.values()))
    path.write_text(json.dumps(asdict(measurements), indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> Measured:
    """Read a file that `write` wrote."""
    content = json.loads(path.read_text())
    return Measured(content["machine"], content["cores"], tuple(Point(**point) for point in content["points"]))


def _key(point: Point) -> tuple[str, str, str, int]:
    return point.service, point.kind, point.call, point.in_flight


def _point(result: Result) -> Point:
    workload, images = result.case.workload, max(1, result.images)
    return Point(
        result.case.service, workload.kind, workload.call, workload.in_flight,
        images_a_job=max(measured.report.images_a_job for measured in result.rounds),
        rate=round(result.rate, 1),
        median=round(result.latency(0.5), 5) if result.latencies else 0.0,
        batch=round(fmean(result.batch_sizes), 2) if result.batch_sizes else 0.0,
        bytes_an_image=round(sum(one.report.sent + one.report.received for one in result.rounds) / images),
        cpu={role: round(cost / 1e3, 6) for role, cost in sorted(result.cost().items())},
    )  # fmt: skip
