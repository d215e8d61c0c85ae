"""Measure images per second of Convlens beside peers that do the same work on the same machine in the same run.

`make bench-plane`. The model `null` computes nothing, so everything but the mathematics is measured; the row `vgg16`
has the stock network. Every service is a process with a client process of its own, peers in environments of their own
(`.venv-peers`, created if missing). Rounds are interleaved; medians are printed. Linux only.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.plane import measured, table
from bench.plane.rows import rates
from bench.plane.rows.bench import Bench
from bench.plane.rows.device import device
from bench.plane.rows.large import large
from bench.plane.rows.latency import alone, poisson
from bench.plane.rows.queued import queued
from bench.plane.rows.vgg16 import vgg16
from bench.plane.subject import DidNotRun

ROWS: Final[dict[str, Callable[[Bench], None]]] = {
    "map-raw": rates.MAP_RAW,
    "map-redis": rates.MAP_REDIS,
    "map-jpeg": rates.MAP_JPEG,
    "map-photo": rates.MAP_PHOTO,
    "unary": rates.UNARY,
    "others": rates.OTHERS,
    "ray": rates.RAY,
    "alone": alone,
    "poisson": poisson,
    "device": device,
    "large": large,
    "queued": queued,
    "vgg16": vgg16,
}


def main() -> None:
    """Run the rows and print the tables."""
    parser = argparse.ArgumentParser(
        "python -m bench.plane", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=lambda names: names.split(","), default=list(ROWS), metavar="ROW,…",
                        help=f"which to run (default: {','.join(ROWS)})")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a case in a round (default: 1.5)")
    parser.add_argument(
        "--queued", type=int, default=100_000, help="jobs that wait in the row queued (default: 100000)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="adds the measured points to a file, for simulate.py")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that services are ended
    start = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), options.rounds, options.seconds, options.queued)
        for name in options.rows:
            print(f"{name}…", file=sys.stderr, flush=True)
            try:
                ROWS[name](bench)
            except DidNotRun as error:
                bench.note(f"row {name} ended early: {error}")
    if options.json:
        measured.write(options.json, bench.results)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {options.rounds} rounds, "
        f"{time.monotonic() - start:.0f} s in all; other programs used {bench.others:.0%} of the machine\n"
    )
    print("\n\n".join((table.lines(bench.lines), table.costs(bench.results), table.batches(bench.results))))
    print("\n".join(("", *bench.notes)))


if __name__ == "__main__":
    main()
