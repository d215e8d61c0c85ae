"""The Redis keys and channels that Python names; schema.md says what each of them holds."""

from __future__ import annotations

from typing import Final

from convlens.jobs.runtime.redis_client import KEY_PREFIX as PREFIX

# Channels
NOTICES: Final = PREFIX + "notices"
ENDED: Final = PREFIX + "ended"
NEW_FLOWS: Final = PREFIX + "new-flows"

# Keys
IMAGES: Final = PREFIX + "images"
GARBAGE: Final = PREFIX + "garbage"
POOLS: Final = PREFIX + "pools"
SINCE: Final = PREFIX + "pools-since"
REFUSED: Final = PREFIX + "refused"
POISONED: Final = PREFIX + "poisoned"
POISONED_INBOX: Final = PREFIX + "poisoned-inbox"

KINDS: Final = ("", "many", "huge")
"""Of Celery queues: for jobs of one pass an image, of many passes, and of images with very many pixels."""


def card(pool: str) -> str:
    """The model card of a pool."""
    return f"{PREFIX}card:{pool}"


def serving(pool: str) -> str:
    """The workers of a pool."""
    return f"{PREFIX}serving:{pool}"


def messages(pool: str, kind: str = "") -> str:
    """The Celery queue of a pool for the jobs of one of KINDS."""
    return f"convlens.{pool}/{kind}" if kind else f"convlens.{pool}"
