"""The rows about latency: one call at a time, and Poisson arrivals at a rate that every service sustains."""

from __future__ import annotations

from typing import Final

from bench.plane.contest import Case, Result
from bench.plane.load import Workload
from bench.plane.rows.bench import Bench
from bench.plane.services import ECHO, MOSEC, OURS, SERVICES
from bench.plane.table import Line

PEER: Final = f"{MOSEC} ×1"
SECONDS: Final = 2
"""Times as long as other rows: percentiles need samples."""
POISSON_RATE: Final = 50.0


def alone(bench: Bench) -> None:
    """Compare one call at a time: our median against mosec's, our 99th percentile against our median."""
    results = _contest(bench, Workload(seconds=bench.seconds * SECONDS), (OURS, PEER, ECHO))
    if OURS not in results:
        return
    ours = results[OURS]
    for name in (PEER, ECHO):
        if name in results:
            target = 1.0 if name == PEER else None
            bench.lines.append(
                _compare(f"one call at a time, median: {OURS} / {name}", ours, results[name], 0.5, target)
            )
    spread = results[PEER].latency(0.99) / results[PEER].latency(0.5) if PEER in results else None
    bench.lines.append(
        Line(
            "one call at a time, 99th percentile / median",
            f"{_ms(ours, 0.99)} / {_ms(ours, 0.5)}", f"{spread:.2f} ({PEER})" if spread else "",
            ours.latency(0.99) / ours.latency(0.5), 3.0, at_most=True,
        )
    )  # fmt: skip


def poisson(bench: Bench) -> None:
    """Compare latencies in an open loop."""
    results = _contest(bench, Workload(seconds=bench.seconds * SECONDS, rate=POISSON_RATE), (OURS, PEER))
    if len(results) == 2:
        for share, name in ((0.5, "median"), (0.99, "99th percentile")):
            what = f"Poisson arrivals, {POISSON_RATE:g}/s, {name}: {OURS} / {PEER}"
            bench.lines.append(_compare(what, results[OURS], results[PEER], share, None))


def _contest(bench: Bench, workload: Workload, names: tuple[str, ...]) -> dict[str, Result]:
    with bench.running({name: SERVICES[name] for name in names}) as subjects:
        results = bench.contest([Case(name, subject, workload) for name, subject in subjects.items()])
    return {result.case.service: result for result in results}


def _compare(what: str, ours: Result, peer: Result, share: float, target: float | None) -> Line:
    ratio = ours.latency(share) / peer.latency(share)
    return Line(what, _ms(ours, share), _ms(peer, share), ratio, target, at_most=True)


def _ms(result: Result, share: float) -> str:
    return f"{result.latency(share) * 1e3:.1f} ms"
