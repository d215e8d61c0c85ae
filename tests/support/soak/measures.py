"""What a service holds: memory and descriptors of each process, keys and bytes of Redis, payloads. Linux only."""

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
"""By what is measured: how much more at the end is still flat, beyond a tenth."""
KEYS = "Redis keys"
"""While clients are there it follows their calls, as many as the machine is free for; so it is compared at rest."""


def sample(stack: Stack) -> Sample:
    """Everything there is to measure, now."""
    found: Sample = {}
    for part in (stack.valkey, stack.server, *stack.workers):
        status = Path(f"/proc/{part.pid}/status").read_text().splitlines()
        words = dict(line.split(":", 1) for line in status)
        found[f"{part.name} MiB"] = int(words["VmRSS"].split()[0]) / 1024
        found[f"{part.name} threads"] = int(words["Threads"])
        found[f"{part.name} descriptors"] = len(list(Path(f"/proc/{part.pid}/fd").iterdir()))
    found[KEYS] = stack.redis.dbsize()
    found["Redis MiB"] = stack.redis.info("memory")["used_memory"] / MIB
    found["payloads MiB"] = stack.stored() / MIB
    return found


@dataclass(frozen=True, slots=True)
class Trend:
    """One measure at the start and at the end."""

    name: str
    start: float
    end: float

    @property
    def flat(self) -> bool:
        """True when the end is no more than the start, a tenth and some slack."""
        return self.end <= self.start * 1.1 + SLACK[self.name.rpartition(" ")[2]]


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """The median of the first fifth against that of the last."""
    part = max(1, len(samples) // 5)
    return [
        Trend(name, *(statistics.median(it[name] for it in some) for some in (samples[:part], samples[-part:])))
        for name in samples[0]
        if name != KEYS
    ]


def at_rest(stack: Stack, before: float, seconds: float) -> Trend:
    """Redis' keys before any client came, and once what the clients left has outlived its time, or in `seconds`."""
    with contextlib.suppress(AssertionError):  # what is left then is told
        until(lambda: stack.redis.dbsize() <= before + SLACK["keys"], seconds)
    return Trend(KEYS, before, stack.redis.dbsize())
