"""What the parts of the queue share: a connection, the scripts, the payload store, and how payloads are disposed of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import redis

from convlens.jobs.payloads import open_store
from convlens.jobs.payloads.store import is_payload_name
from convlens.jobs.queue import poison
from convlens.jobs.queue.scripts import Scripts
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.jobs.runtime.settings import JobsSettings

log = logging.getLogger(__name__)

_EVICTED: Final = 200
"""Cached results, and tombstones, that are evicted at once."""


class QueueClient:
    """A client of the queue, thread-safe. Raises RedisUnavailable, and UnusableFolder for a bad payload_dir.

    Execution is at least once, the visible outcome exactly once: a job is claimed with a secret token and a lease, the
    first final state wins, and every script is safe to repeat.
    """

    def __init__(self, client: redis.Redis, settings: JobsSettings) -> None:
        self.redis = client
        self.settings = settings
        self.payloads = open_store(client, settings.payload_dir, self.evict_cached)
        self._run = Scripts(client)

    @property
    def _ttls(self) -> dict[str, int]:
        """The options of scripts that end jobs."""
        settings = self.settings
        return {"result_ttl": int(settings.result_ttl * 1000), "answered_ttl": int(settings.answered_ttl * 1000)}

    def evict_cached(self, size: int) -> list[str]:
        """Delete cached results of about `size` bytes, the oldest first; return the payloads that may be deleted."""
        _, unused = self._run("evict", tombstones=0, results=0, bytes=size)
        return [name.decode(errors="replace") for name in unused]

    def _evict(self) -> bool:
        """Delete some cached results and tombstones; False when there are no more of them."""
        evicted, unused = self._run("evict", tombstones=_EVICTED, results=_EVICTED, bytes=0)
        self._dispose([name.decode(errors="replace") for name in unused])
        return bool(evicted)

    def _dispose(self, names: Sequence[str]) -> None:
        """Delete payloads that are not needed any more; what is no payload's name is quarantined.

        Where Redis is unavailable, they are left to their time to live: the caller's own outcome counts.
        """
        valid = [name for name in names if is_payload_name(name)]
        try:
            self.payloads.delete(valid)
            for name in set(names).difference(valid):
                poison.quarantine(self.redis, "garbage", name.encode(), "is no payload's name")
        except RedisUnavailable as error:
            log.warning("payloads=%s are left to their time to live: %s", ",".join(valid), error)
