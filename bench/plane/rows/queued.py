"""The row about a long queue: do jobs cost more while very many others wait?

The others are jobs of another model, whose worker never finishes; after a few calls that occupy it, the
queue is filled by the submit script. The same service is measured before and after, since the cost may lie in the
background; so rounds are not interleaved here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from time import monotonic
from typing import Final

from bench.plane import processes, service
from bench.plane.client import SLOW_MODEL
from bench.plane.contest import Case
from bench.plane.load import Workload
from bench.plane.rows.bench import Bench
from bench.plane.subject import DidNotRun
from bench.plane.table import Line
from convlens.local.valkey import free_port

BUSY: Final = 64
"""Calls that occupy the other model's worker."""
FILLERS: Final = 2
WORKERS: Final = ("null=null", f"{SLOW_MODEL}=null,device_ms=3600000+0")

BOUNDS: Final = {"CONVLENS_TENANT_SHARE": "1", "CONVLENS_MAX_QUEUED_BYTES": str(1 << 40),
               "CONVLENS_MAX_STORED_BYTES": str(1 << 40)}  # fmt: skip
"""High enough for one tenant's long queue."""


def queued(bench: Bench) -> None:
    """Measure single images, 32 in flight and one at a time, before and after the queue is filled."""
    most = str(bench.queued + 100_000)
    env = {"CONVLENS_MAX_JOBS": most, "CONVLENS_MAX_KNOWN_JOBS": most, **BOUNDS}
    name = "Convlens, many queued"
    port = free_port()
    start = functools.partial(service.parts, name, workers=WORKERS, env=env, port=port)
    with bench.running({name: start}) as subjects:
        if not subjects:
            return
        subject = subjects[name]
        workloads = [Workload("jpeg", "single", number, bench.seconds) for number in (32, 1)]
        before = bench.contest([Case("Convlens, none queued", subject, workload) for workload in workloads])
        subject.run(Workload(call="queue", in_flight=BUSY, seconds=60.0, most=BUSY))
        number, seconds = bench.queued // FILLERS * FILLERS, _fill(bench, f"redis://127.0.0.1:{port}/0")
        full = f"Convlens, {number:,} queued"
        after = bench.contest([Case(full, subject, workload) for workload in workloads])
        idle = subject.run(Workload(call="idle", seconds=3 * bench.seconds))
    bench.note(f"{number:,} jobs were queued in {seconds:.0f} s by {FILLERS} processes")
    shares = ", ".join(f"{role} {seconds / idle.report.seconds:.1%}" for role, seconds in sorted(idle.cpu.items()))
    bench.note(f"at rest with {number:,} jobs queued, of one core: {shares}")
    what = f"{number:,} jobs queued / none: an image a call"
    rates = [results[0].rate for results in (after, before)]
    costs = [sum(results[0].cost().values()) for results in (after, before)]
    medians = [results[1].latency(0.5) * 1e3 for results in (after, before)]
    bench.lines += [
        _line(f"{what}, 32 in flight, rate", rates, "{:,.0f}/s", 0.9),
        _line(f"{what}, CPU time", costs, "{:.2f} ms", 1.1, at_most=True),
        _line(f"{what}, alone, median", medians, "{:.1f} ms", None),
    ]


def _fill(bench: Bench, url: str) -> float:
    """Queue the jobs and return the seconds it took. Raises DidNotRun."""
    log = processes.new_log(bench.folder, "fill")
    command = [sys.executable, "-m", "bench.plane.fill", url, SLOW_MODEL, str(bench.queued // FILLERS)]
    began = monotonic()
    fillers = [processes.start(command, log) for _ in range(FILLERS)]
    if sum(abs(filler.wait()) for filler in fillers):
        raise DidNotRun(log.read_text(errors="replace").strip().splitlines()[-1])
    return monotonic() - began


def _line(what: str, values: Sequence[float], form: str, target: float | None, *, at_most: bool = False) -> Line:
    """Return the line of a value with jobs queued and without."""
    queued, none = values
    return Line(what, form.format(queued), form.format(none), queued / none, target, at_most=at_most)
