"""The Redis keys that Python names; all of them, and the fields of a job, are in schema.md."""

from __future__ import annotations

from typing import Final

from convlens.jobs.runtime.redis_client import KEY_PREFIX as PREFIX

USAGE: Final = PREFIX + "usage"
"""Hash: what is held, in all and for each tenant."""
NOTICES: Final = PREFIX + "notices"
"""Channel: "JOB STATE" at each change of state, and for SUCCEEDED what the record says of the result."""
ENDED: Final = PREFIX + "ended"
"""Channel: the same for CANCELLED and EXPIRED alone, which workers need to know."""
NEW_FLOWS: Final = PREFIX + "new-flows"
"""Channel: the name of a pool in which a flow became active while others have jobs waiting."""
KINDS: Final = ("", "many", "huge")
"""Of Celery queues: for jobs of one pass an image, of many passes, and of images with very many pixels."""
IMAGES: Final = PREFIX + "images"
"""Hash: the latest pack that has an image, by digest."""
GARBAGE: Final = PREFIX + "garbage"
"""List: payloads nobody needs any more."""
POOLS: Final = PREFIX + "pools"
"""Sorted set: the pools, by when their workers' registration expires."""
SINCE: Final = PREFIX + "pools-since"
"""Sorted set: the same, by when they were first served."""
REFUSED: Final = PREFIX + "refused"
"""Sorted set: serialized RefusedModels, by when their worker's registration expires."""

POISONED: Final = PREFIX + "poisoned"
"""List: the latest quarantined entries: kind, entry, reason."""
POISONED_INBOX: Final = PREFIX + "poisoned-inbox"
"""List: those that scripts quarantined and nobody has reported yet."""


def card(pool: str) -> str:
    """String: the model's card."""
    return f"{PREFIX}card:{pool}"


def serving(pool: str) -> str:
    """Sorted set: the workers of a pool, by when their registration expires."""
    return f"{PREFIX}serving:{pool}"


def messages(pool: str, kind: str = "") -> str:
    """List: a Celery queue of a pool, of the jobs of one of KINDS."""
    return f"convlens.{pool}/{kind}" if kind else f"convlens.{pool}"
