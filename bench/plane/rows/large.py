"""The row of large tensors: block1_conv1 of 16 images, 205 MB, against a bare gRPC stream of as many bytes."""

from __future__ import annotations

from statistics import median

from bench.plane.contest import Case, Result
from bench.plane.load import Workload
from bench.plane.rows.bench import Bench
from bench.plane.services import ECHO, IN_REDIS, OURS, SERVICES
from bench.plane.table import Line


def large(bench: Bench) -> None:
    """Measure the reading of a stored result, and the whole call."""
    with bench.running({name: SERVICES[name] for name in (OURS, IN_REDIS, ECHO)}) as subjects:
        calls = {OURS: ("transfer", "large"), IN_REDIS: ("transfer",), ECHO: ("large",)}
        cases = [
            Case(name, subject, Workload("jpeg", call)) for name, subject in subjects.items() for call in calls[name]
        ]
        results = bench.contest(cases)
    by_call = {(result.case.service, result.case.workload.call): result for result in results}
    bare = by_call.get((ECHO, "large"))
    if bare is None:
        return
    for (name, call), what, target in (
        ((OURS, "transfer"), "read a result of 205 MB", 0.6),
        ((IN_REDIS, "transfer"), "read a result of 205 MB", None),
        ((OURS, "large"), "compute, store and read 205 MB", None),
    ):
        if (name, call) in by_call:
            ours = _speed(by_call[name, call])
            line = Line(
                f"{what}: {name} / {ECHO}",
                f"{ours:,.0f} MB/s",
                f"{_speed(bare):,.0f} MB/s",
                ours / _speed(bare),
                target,
            )
            bench.lines.append(line)


def _speed(result: Result) -> float:
    """Return MB a second."""
    return median(measured.report.received / measured.report.seconds for measured in result.rounds) / 1e6
