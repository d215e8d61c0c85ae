"""`make soak`: python -m soak [--minutes 60]; runs mixed traffic and reports which measures grew.

`make soak-rate`: python -m soak --calls-per-second 500 --maxmemory 256mb; see soak.rate.
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

from chaos.stack import Stack, running_stack

from soak.client import KINDS
from soak.measures import redis_keys_at_rest, sample, trends
from soak.rate import run_at_rate

TTL = 20
"""Seconds that a result is kept, and then its tombstone."""
RECORD_LIFETIME = 400.0
"""Seconds after which no key of a job is left: its timeout of five minutes and both TTLs."""
WARM_UP = 120.0
"""Seconds before the first sample, in which the number of records levels off and each worker meets the largest jobs."""
SAMPLE_INTERVAL = 5.0


class ClientProcesses:
    """One process of each kind of client, restarted when it ends."""

    def __init__(self, target: str, log: Path) -> None:
        self._target = target
        self._log = log.open("wb")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self.done: collections.Counter[str] = collections.Counter()
        """Completed calls, by kind."""
        self.started: collections.Counter[str] = collections.Counter()
        """Started processes, by kind."""

    def restart_ended(self) -> None:
        """Start the kinds of client that are not running."""
        for kind in KINDS:
            process = self._processes.get(kind)
            if process is None or process.poll() is not None:
                command = [sys.executable, "-m", "soak.client", kind, self._target]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log)
                threading.Thread(target=self._count, args=(process,), daemon=True).start()
                self._processes[kind] = process
                self.started[kind] += 1

    def _count(self, process: subprocess.Popen[bytes]) -> None:
        for line in process.stdout:
            with self._lock:
                self.done[line.decode().strip()] += 1

    def close(self) -> None:
        """End all clients."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._log.close()


def collect_samples(stack: Stack, clients: ClientProcesses, seconds: float, log: TextIO) -> list[dict[str, float]]:
    """Take samples for `seconds` after the warm-up, and write each to the log."""
    start = time.monotonic() + WARM_UP
    end = start + seconds
    samples = []
    while (now := time.monotonic()) < end:
        clients.restart_ended()
        if now >= start:
            samples.append(latest := sample(stack))
            print(json.dumps(latest), file=log, flush=True)
        time.sleep(SAMPLE_INTERVAL)
    return samples


def main() -> int:
    """Run the soak; the exit status is 1 when a measure grew or a client ended unexpectedly."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all child processes are ended
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("--minutes", type=float, default=60.0, help="after a warm-up of two minutes")
    parser.add_argument("--calls-per-second", type=float, help="run only small calls at this rate; see soak.rate")
    parser.add_argument("--maxmemory", default="256mb", help="maxmemory of Redis with --calls-per-second")
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="folder for samples and the clients' errors")
    options = parser.parse_args()
    if options.calls_per_second:
        return int(not run_at_rate(options.calls_per_second, options.maxmemory, options.minutes))
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {"result_ttl": TTL, "tombstone_ttl": TTL, "answered_ttl": TTL, "lease": 5}
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        running_stack(Path(folder) / "stack", shapes=True, payloads_in_folder=True, settings=settings) as stack,
        (options.out / "samples.jsonl").open("w") as log,
    ):
        before = stack.redis.dbsize()
        clients = ClientProcesses(stack.target, options.out / "clients.log")
        try:
            samples = collect_samples(stack, clients, 60 * options.minutes, log)
        finally:
            clients.close()
        keys_trend = redis_keys_at_rest(stack, before, RECORD_LIFETIME)
    print(f"{'':24}{'start':>10}{'end':>10}")
    measures = [*trends(samples), keys_trend]
    for trend in measures:
        print(f"{trend.name:24}{trend.start:10.1f}{trend.end:10.1f}  {'flat' if trend.is_flat else 'grew'}")
    print("calls done:", ", ".join(f"{kind} {count}" for kind, count in sorted(clients.done.items())))
    print(f"clients that crashed on purpose: {clients.started['crashing']}")
    lost = {kind: count - 1 for kind, count in clients.started.items() if count > 1 and kind != "crashing"}
    print("clients that ended unexpectedly:", lost or "none")
    return int(bool(lost) or not all(trend.is_flat for trend in measures))


if __name__ == "__main__":
    sys.exit(main())
