"""Payloads: images in, tensors out, as raw bytes under a name, behind one small protocol.

`store.py` is the protocol with its errors, `redis.py` and `directory.py` are the two stores. The rest serves the
directory: `payload_files.py` (a file's life), `file_pool.py` (files used again), `reclaimer.py` (space in a full
folder), `own_folder.py` (a folder closed to other users). Nothing here knows a job or the queue.

To add a store, say S3:

1. Write `s3.py` with a subclass of `store.PayloadStore`: `may_block`, `put`, `read_many`, `delete` and `sweep`. Draw
   the parts by `in_batches(parts)`, which keeps memory bounded: a batch is one part of a multipart upload. Raise
   `StoreFull` where there is no space, and return None for what is gone.
2. Choose it in `open_store` below, by a setting of `runtime/settings.py`.
3. Add it to the `jobs` fixture of tests/integration/jobs/conftest.py, so that the queue's tests run over it, too.
"""

from __future__ import annotations

from pathlib import Path

import redis

from convlens.jobs.payloads.directory import DirectoryPayloads
from convlens.jobs.payloads.reclaimer import Evict
from convlens.jobs.payloads.redis import RedisPayloads
from convlens.jobs.payloads.store import PayloadStore
from convlens.jobs.runtime.redis_client import RedisClock


def open_store(client: redis.Redis, folder: Path | None, evict: Evict) -> PayloadStore:
    """Open the store in `folder`, or the one in Redis where there is none. Raises UnusableFolder."""
    return DirectoryPayloads(folder, RedisClock(client), evict) if folder else RedisPayloads(client)
