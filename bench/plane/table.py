"""The printed tables: comparisons with their targets, the costs of each process, and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.plane.contest import Result

ROLES = ("client", "server", "worker", "redis", "other")


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison, its target and whether it is reached."""

    what: str
    ours: str
    peer: str
    """Empty where we are compared with a target alone."""
    ratio: float
    target: float | None = None
    """None: for information."""
    at_most: bool = False
    """The target is an upper bound of the ratio, not a lower one."""
    form: str = ".2f"

    def cells(self) -> tuple[str, ...]:
        """Return the cells of its row."""
        target, verdict = "", ""
        if self.target is not None:
            target = f"{'≤' if self.at_most else '≥'} {self.target:{self.form}}"
            verdict = "yes" if (self.ratio <= self.target if self.at_most else self.ratio >= self.target) else "no"
        return self.what, self.ours, self.peer, f"{self.ratio:{self.form}}", target, verdict


def lines(comparisons: Sequence[Line]) -> str:
    """Format the table of comparisons."""
    return _table(("", "ours", "peer", "ratio", "target", "reached"), [line.cells() for line in comparisons])


def costs(results: Sequence[Result]) -> str:
    """Format rates, latencies, bytes, and CPU milliseconds per image of each process."""
    roles = [role for role in ROLES if any(role in result.cost() for result in results)]
    head = (
        "",
        "images/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "kB/image",
        *(f"{role} ms" for role in roles),
        "CPU ms",
        "others",
    )
    rows = []
    for result in results:
        cost = result.cost()
        latencies = result.latency(0.5), result.latency(0.99), max(result.latencies, default=0.0)
        milliseconds = [f"{seconds * 1e3:.1f}" if result.latencies else "" for seconds in latencies]
        kilobytes = (
            sum(measured.report.sent + measured.report.received for measured in result.rounds)
            / max(1, result.images)
            / 1e3
        )
        each = [f"{cost[role]:.2f}" if role in cost else "" for role in roles]
        failed = f" ({result.failed} failed: {result.error()})" if result.failed else ""
        rows.append((result.case.name + failed, f"{result.rate:,.0f}", *milliseconds, f"{kilobytes:,.0f}", *each,
                     f"{sum(cost.values()):.2f}", f"{result.others:.0%}"))  # fmt: skip
    return _table(head, rows)


def batches(results: Sequence[Result]) -> str:
    """Format batch sizes, waiting times and causes as results report them."""
    rows = []
    for result in results:
        if sizes := result.batch_sizes:
            waits = result.waits
            rows.append((result.case.name, f"{fmean(sizes):.1f}", str(max(sizes)), f"{fmean(waits) * 1e3:.1f}",
                         f"{max(waits) * 1e3:.1f}",
                         ", ".join(f"{share:.0%} {cause}" for cause, share in result.causes.items())))  # fmt: skip
    return _table(("", "batch: mean", "largest", "wait ms: mean", "longest", "no more because"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format columns under their heads, the first one aligned to the left."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in (head, *rows)
    )  # fmt: skip
