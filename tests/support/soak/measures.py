"""Resource usage of a service: memory, threads and descriptors of each process, Redis, payloads. Linux only."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.stack import Stack
from processes import until

MIB = 1 << 20
Sample = dict[str, float]
SLACK = {"MiB": 16.0, "descriptors": 8.0, "threads": 4.0, "keys": 20.0}
"""The growth beyond a tenth that still counts as flat, by unit."""
KEYS = "Redis keys"
"""Depends on the rate of calls while clients run, so it is compared before and after them."""


def sample(stack: Stack) -> Sample:
    """Take all measures now."""
    measures: Sample = {}
    for process in (stack.valkey, stack.server, *stack.workers):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        measures[f"{process.name} MiB"] = int(status["VmRSS"].split()[0]) / 1024
        measures[f"{process.name} threads"] = int(status["Threads"])
        measures[f"{process.name} descriptors"] = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    measures[KEYS] = stack.redis.dbsize()
    measures["Redis MiB"] = stack.redis.info("memory")["used_memory"] / MIB
    measures["payloads MiB"] = stack.payload_bytes() / MIB
    return measures


@dataclass(frozen=True, slots=True)
class Trend:
    """The value of one measure at the start and at the end."""

    name: str
    start: float
    end: float

    @property
    def is_flat(self) -> bool:
        """True when the end exceeds the start by no more than a tenth and the slack of its unit."""
        return self.end <= self.start * 1.1 + SLACK[self.name.rpartition(" ")[2]]


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """Compare the median of the first fifth of the samples with that of the last fifth, for each measure."""
    count = max(1, len(samples) // 5)

    def median(name: str, part: Sequence[Sample]) -> float:
        return statistics.median(measures[name] for measures in part)

    return [
        Trend(name, median(name, samples[:count]), median(name, samples[-count:]))
        for name in samples[0]
        if name != KEYS
    ]


def redis_keys_at_rest(stack: Stack, before: float, seconds: float) -> Trend:
    """Wait up to `seconds` until the clients' keys have expired, and compare their number with `before`."""
    with contextlib.suppress(AssertionError):  # keys that are left show in the trend
        until(lambda: stack.redis.dbsize() <= before + SLACK["keys"], seconds)
    return Trend(KEYS, before, stack.redis.dbsize())
