"""Poisoned entries: members of Redis and messages that nobody can read. They are quarantined, logged and counted.

What the scripts quarantine waits in an inbox until the reconciler reports it; the latest MOST are kept for inspection.
"""

from __future__ import annotations

import logging
from typing import Final

import redis
from prometheus_client import Counter

from convlens.jobs.queue import keys

log = logging.getLogger(__name__)

MOST: Final = 100
"""Entries that are kept, and that wait to be reported; lua/lib/poison.lua has the same number."""
SHOWN: Final = 200
"""Characters of an entry that are kept."""

_KINDS: Final = {b"job", b"record", b"images", b"key"}
"""What scripts quarantine."""
_POISONED: Final = Counter("convlens_poisoned", "Entries of Redis and messages that nobody could read.", ["kind"])


def report(kind: str, entry: bytes | str, why: str) -> None:
    """Count an entry and log it; logs.RateLimit bounds how often."""
    _POISONED.labels(kind).inc()
    log.error("poisoned=%s entry=%r is quarantined: %s", kind, entry[:SHOWN], why)


def quarantine(client: redis.Redis, kind: str, entry: bytes, why: str) -> None:
    """Report an entry that was removed from Redis, and keep its beginning."""
    report(kind, entry, why)
    with client.pipeline(transaction=False) as pipe:
        pipe.rpush(keys.POISONED, b" ".join([kind.encode(), entry[:SHOWN], why.encode()]))
        pipe.ltrim(keys.POISONED, -MOST, -1)
        pipe.execute()


def report_quarantined(client: redis.Redis) -> None:
    """Report what scripts have quarantined since the last time, and keep it."""
    for _ in range(MOST):
        line = client.lmove(keys.POISONED_INBOX, keys.POISONED, "LEFT", "RIGHT")
        if line is None:
            break
        kind, _, rest = line.partition(b" ")
        report(kind.decode() if kind in _KINDS else "other", rest, "by a script of the queue")
    client.ltrim(keys.POISONED, -MOST, -1)
