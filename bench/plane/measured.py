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
    """Seconds of a call; 0 where calls cannot be told apart."""
    batch: float
    """Images in a pass, the mean over images; 0 where the service does not tell."""
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
        """The point of one case."""
        wanted = (service, kind, call, in_flight)
        return next((it for it in self.points if (it.service, it.kind, it.call, it.in_flight) == wanted), None)


def write(path: Path, results: Sequence[Result]) -> None:
    """Closed loops only. Points of the same case are replaced, others that the file has are kept."""
    found = {_key(it): it for it in (read(path).points if path.exists() else ())}
    found |= {_key(it): it for it in (_point(result) for result in results if not result.case.order.rate)}
    whole = Measured(platform.machine(), os.cpu_count() or 1, tuple(found.values()))
    path.write_text(json.dumps(asdict(whole), indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> Measured:
    """What `write` wrote."""
    found = json.loads(path.read_text())
    return Measured(found["machine"], found["cores"], tuple(Point(**it) for it in found["points"]))


def _key(point: Point) -> tuple[str, str, str, int]:
    return point.service, point.kind, point.call, point.in_flight


def _point(result: Result) -> Point:
    order, images = result.case.order, max(1, result.images)
    return Point(
        result.case.service, order.kind, order.call, order.in_flight,
        images_a_job=max(it.report.images_a_job for it in result.rounds),
        rate=round(result.rate, 1),
        median=round(result.latency(0.5), 5) if result.latencies else 0.0,
        batch=round(fmean(result.batch_sizes), 2) if result.batch_sizes else 0.0,
        bytes_an_image=round(sum(it.report.sent + it.report.received for it in result.rounds) / images),
        cpu={role: round(cost / 1e3, 6) for role, cost in sorted(result.cost().items())},
    )  # fmt: skip
