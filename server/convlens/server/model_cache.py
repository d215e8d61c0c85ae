"""Caches the model cards that workers publish in Redis, so that a request rarely reads them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Final

from convlens.jobs import model_registry
from convlens.jobs.queue.producer import Producer

TTL_SECONDS: Final = 1.0
EMPTY_TTL_SECONDS: Final = 0.05
"""While no model is served: the first worker to start is seen at once."""


class ModelCache:
    """The models that live workers serve, at most TTL_SECONDS old. Concurrent readers share one read of Redis."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._live = model_registry.LiveModels({}, {}, ())
        self._expires = 0.0
        self._refresh: asyncio.Task[model_registry.LiveModels] | None = None
        self.known_names: set[str] = set()
        """Of all models that were ever served."""

    async def get(self) -> model_registry.LiveModels:
        """Return what is served now. RedisUnavailable where it has to be read and cannot."""
        if time.monotonic() < self._expires:
            return self._live
        if self._refresh is None:
            self._refresh = asyncio.create_task(self._read())
            self._refresh.add_done_callback(self._end_refresh)
        return await asyncio.shield(self._refresh)

    async def _read(self) -> model_registry.LiveModels:
        live = await asyncio.get_running_loop().run_in_executor(
            None, model_registry.read_live_models, self._producer.redis
        )
        cached = self._live.models  # an unchanged card stays the same object, by which plans are cached
        models = {name: cached[name] if cached.get(name) == card else card for name, card in live.models.items()}
        self._live = dataclasses.replace(live, models=models)
        self.known_names |= {*models, *live.known_names}
        self._expires = time.monotonic() + (TTL_SECONDS if models else EMPTY_TTL_SECONDS)
        return self._live

    def _end_refresh(self, refresh: asyncio.Task[model_registry.LiveModels]) -> None:
        self._refresh = None
        if not refresh.cancelled():
            refresh.exception()  # marks it as seen where every reader went away
