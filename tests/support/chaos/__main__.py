"""The long form, `make chaos`: python -m chaos [--jobs 10000] [--only WORDS]; one row a fault, lane after lane."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from chaos.runner import rows
from chaos.table import LANES, TABLE

PAUSE = 0.01
HEAD = f"{'fault':32}{'jobs':>7}{'lost':>6}{'wrong':>7}{'doubled':>9}{'recovery':>11}  callers met"


def main() -> int:
    """Prints the rows; the exit status is 1 when anything was lost, wrong or doubled."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process is left behind
    parser = argparse.ArgumentParser(prog="chaos")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs in all, at least")
    parser.add_argument("--only", default="", help="faults whose names hold these words")
    wanted = parser.parse_args()
    each = -(-wanted.jobs // len(TABLE))
    print(HEAD, flush=True)
    found = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        for lane in LANES:
            faults = [it for it in lane.faults if wanted.only in it.name]
            for row in rows(lane, faults, Path(folder), each, PAUSE):
                print(
                    f"{row.fault:32}{row.jobs:7}{row.lost:6}{row.wrong:7}{row.doubled:9}{row.recovery:9.2f} s  "
                    f"{', '.join(row.met) or '-'}",
                    *row.told[:5], sep="\n    ", flush=True,
                )  # fmt: skip
                found.append(row)
    total = [sum(values) for values in zip(*((it.jobs, it.lost, it.wrong, it.doubled) for it in found), strict=True)]
    print(f"{'in all':32}{total[0]:7}{total[1]:6}{total[2]:7}{total[3]:9}")
    return int(any(it.told for it in found))


if __name__ == "__main__":
    sys.exit(main())
