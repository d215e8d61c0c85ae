"""`make soak`: python -m soak [--minutes 60]; says of each measure whether it stayed flat.

`make soak-rate`: python -m soak --calls-per-second 500 --maxmemory 256mb.
"""

from __future__ import annotations

import argparse
import collections
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TextIO

from chaos.stack import Stack, stacked

from soak.client import KINDS
from soak.measures import at_rest, sample, trends
from soak.rate import carried

TTL = 20
"""Seconds that a result is kept, and its id after that: what comes is as much as what goes once these are over."""
LIFE = 400.0
"""Seconds after which nothing of a job is left: its timeout of five minutes, and all that is kept after that."""
WARM = 120.0
"""Seconds before the first sample: the records have come to a level, and each worker has had the largest jobs."""
EVERY = 5.0


class Crowd:
    """One process of each kind of client; one that ends is followed by another."""

    def __init__(self, target: str, log: Path) -> None:
        self._target = target
        self._log = log.open("wb")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self.done: collections.Counter[str] = collections.Counter()
        """Calls that came to the end they should, by kind."""
        self.begun: collections.Counter[str] = collections.Counter()
        """Processes, by kind."""

    def look(self) -> None:
        """Starts who is not there."""
        for kind in KINDS:
            process = self._processes.get(kind)
            if process is None or process.poll() is not None:
                command = [sys.executable, "-m", "soak.client", kind, self._target]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log)
                threading.Thread(target=self._count, args=(process,), daemon=True).start()
                self._processes[kind] = process
                self.begun[kind] += 1

    def _count(self, process: subprocess.Popen[bytes]) -> None:
        for line in process.stdout:
            with self._lock:
                self.done[line.decode().strip()] += 1

    def close(self) -> None:
        """Ends them all."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._log.close()


def soaked(stack: Stack, crowd: Crowd, seconds: float, log: TextIO) -> list[dict[str, float]]:
    """Samples of so many seconds, after a time to warm up in; each goes to the log as well."""
    begins = time.monotonic() + WARM
    ends = begins + seconds
    samples = []
    while (now := time.monotonic()) < ends:
        crowd.look()
        if now >= begins:
            samples.append(found := sample(stack))
            print(json.dumps(found), file=log, flush=True)
        time.sleep(EVERY)
    return samples


def main() -> int:
    """Runs it; the exit status is 1 when something grew, or a client that should not have ended did."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process is left behind
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("--minutes", type=float, default=60.0, help="after two of warming up")
    parser.add_argument("--calls-per-second", type=float, help="instead: only small calls at this rate; see soak.rate")
    parser.add_argument("--maxmemory", default="256mb", help="of the Redis that has to carry these")
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="folder for samples and the clients' errors")
    wanted = parser.parse_args()
    if wanted.calls_per_second:
        return int(not carried(wanted.calls_per_second, wanted.maxmemory, wanted.minutes))
    wanted.out.mkdir(parents=True, exist_ok=True)
    settings = {"result_ttl": TTL, "tombstone_ttl": TTL, "answered_ttl": TTL, "lease": 5}
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        stacked(Path(folder) / "stack", shapes=True, payloads_in_folder=True, settings=settings) as stack,
        (wanted.out / "samples.jsonl").open("w") as log,
    ):
        before = stack.redis.dbsize()
        crowd = Crowd(stack.target, wanted.out / "clients.log")
        try:
            samples = soaked(stack, crowd, 60 * wanted.minutes, log)
        finally:
            crowd.close()
        rest = at_rest(stack, before, LIFE)
    print(f"{'':24}{'start':>10}{'end':>10}")
    found = [*trends(samples), rest]
    for it in found:
        print(f"{it.name:24}{it.start:10.1f}{it.end:10.1f}  {'flat' if it.flat else 'grew'}")
    print("calls done:", ", ".join(f"{kind} {count}" for kind, count in sorted(crowd.done.items())))
    print(f"clients that crashed: {crowd.begun['crashing']}")
    lost = {kind: count - 1 for kind, count in crowd.begun.items() if count > 1 and kind != "crashing"}
    print("clients that ended though they should not:", lost or "none")
    return int(bool(lost) or not all(it.flat for it in found))


if __name__ == "__main__":
    sys.exit(main())
