"""`make chaos`: python -m chaos [--jobs 10000] [--only NAME]; runs every fault, lane after lane, one row each."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from chaos.runner import rows
from chaos.table import LANES, TABLE

PAUSE = 0.01
HEAD = f"{'fault':32}{'jobs':>7}{'lost':>6}{'wrong':>7}{'doubled':>9}{'recovery':>11}  errors"


def main() -> int:
    """Run the faults and print their rows; the exit status is 1 when anything was lost, wrong or doubled."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all child processes are ended
    parser = argparse.ArgumentParser(prog="chaos")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs in all, at least")
    parser.add_argument("--only", default="", help="only faults whose name contains this text")
    options = parser.parse_args()
    jobs_per_fault = -(-options.jobs // len(TABLE))
    print(HEAD, flush=True)
    all_rows = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        for lane in LANES:
            faults = [fault for fault in lane.faults if options.only in fault.name]
            for row in rows(lane, faults, Path(folder), jobs_per_fault, PAUSE):
                print(
                    f"{row.fault:32}{row.jobs:7}{row.lost:6}{row.wrong:7}{row.doubled:9}{row.recovery:9.2f} s  "
                    f"{', '.join(row.errors) or '-'}",
                    *row.problems[:5], sep="\n    ", flush=True,
                )  # fmt: skip
                all_rows.append(row)
    counts = ((row.jobs, row.lost, row.wrong, row.doubled) for row in all_rows)
    jobs, lost, wrong, doubled = (sum(column) for column in zip(*counts, strict=True))
    print(f"{'in all':32}{jobs:7}{lost:6}{wrong:7}{doubled:9}")
    return int(any(row.problems for row in all_rows))


if __name__ == "__main__":
    sys.exit(main())
