"""The row about a long queue: do jobs cost more while very many others wait?

The others are jobs of another model, whose worker never gets done. The same service is measured before and after it has
been filled, since the cost may lie in the background; so rounds are not interleaved here.
"""

from __future__ import annotations

from typing import Final

from bench.plane import service
from bench.plane.client import SLOW_MODEL
from bench.plane.contest import Case, Result
from bench.plane.load import Order
from bench.plane.rows.bench import Bench
from bench.plane.table import Line

FILL_SECONDS: Final = 60.0
FILL_IN_FLIGHT: Final = 64
WORKERS: Final = ("null=null", f"{SLOW_MODEL}=null,device_ms=3600000+0")

ROOM: Final = {"CONVLENS_TENANT_SHARE": "1", "CONVLENS_MAX_QUEUED_BYTES": str(1 << 40),
               "CONVLENS_MAX_STORED_BYTES": str(1 << 40)}  # fmt: skip
"""Bounds that one tenant's long queue is not to meet."""


def queued(bench: Bench) -> None:
    """Single images, 32 in flight, and one at a time."""
    room = {"CONVLENS_MAX_JOBS": str(bench.queued + 1000), **ROOM}
    name = "Convlens, many queued"
    with bench.running({name: lambda folder: service.parts(name, folder, workers=WORKERS, env=room)}) as subjects:
        if not subjects:
            return
        subject = subjects[name]
        orders = [Order("jpeg", "single", number, bench.seconds) for number in (32, 1)]
        before = bench.contest([Case("Convlens, none queued", subject, order) for order in orders])
        filling = Order(call="queue", in_flight=FILL_IN_FLIGHT, seconds=FILL_SECONDS, most=bench.queued)
        filled = subject.run(filling).report
        full = f"Convlens, {filled.images:,} queued"
        after = bench.contest([Case(full, subject, order) for order in orders])
        idle = subject.run(Order(call="idle", seconds=3 * bench.seconds))
    if filled.images < bench.queued:
        told = f"; last error: {filled.error}" if filled.error else ""
        bench.note(f"{filled.images:,} jobs queued instead of {bench.queued:,}: {FILL_SECONDS:g} s were over{told}")
    shares = ", ".join(f"{role} {seconds / idle.report.seconds:.1%}" for role, seconds in sorted(idle.cpu.items()))
    bench.note(f"at rest with {filled.images:,} jobs queued, of one core: {shares}")
    what = f"{filled.images:,} jobs queued / none: an image a call"
    rates = [it[0].rate for it in (after, before)]
    bench.lines += [
        Line(f"{what}, 32 in flight, rate", *(f"{it:,.0f}/s" for it in rates), rates[0] / rates[1], 0.9),
        Line(f"{what}, CPU time", *_costs(after[0], before[0]), 1.1, at_most=True),
        Line(f"{what}, alone, median", *(f"{it[1].latency(0.5) * 1e3:.1f} ms" for it in (after, before)),
             after[1].latency(0.5) / before[1].latency(0.5)),
    ]  # fmt: skip


def _costs(after: Result, before: Result) -> tuple[str, str, float]:
    """Milliseconds an image of all processes together."""
    now, then = (sum(it.cost().values()) for it in (after, before))
    return f"{now:.2f} ms", f"{then:.2f} ms", now / then
