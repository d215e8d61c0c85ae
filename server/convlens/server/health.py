"""Keeps grpc.health.v1 up to date: NOT_SERVING without Redis, workers or background loops, and while draining."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from convlens.jobs.queue.producer import Producer
from convlens.jobs.runtime import background
from convlens.jobs.runtime.background import Rounds
from convlens.server.health_service import HealthService
from convlens.server.io_threads import IoThreads
from convlens.server.model_cache import ModelCache
from convlens.v1 import job_pb2, model_pb2, visualization_pb2

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 10.0
"""An update that takes longer has failed."""
SERVICES: Final = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (visualization_pb2, "VisualizationService"),
        (job_pb2, "JobService"),
        (model_pb2, "ModelService"),
    )
)


class Health:
    """Updates the status of "", of the three services, and of "model/NAME" for each model that was ever served."""

    def __init__(self, models: ModelCache, threads: IoThreads, producer: Producer) -> None:
        self.servicer = HealthService()
        self.is_draining = False
        self._models = models
        self._threads = threads
        self._producer = producer
        self._model_names: set[str] = set()
        self._last: tuple[bool, list[str]] | None = None
        self._rounds = Rounds("health")

    async def run(self) -> None:
        """Update every second, until cancelled."""
        while True:
            await self.update()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def update(self) -> None:
        """Update all statuses once; NOT_SERVING where that fails or takes too long."""
        live: set[str] = set()
        with self._rounds.guard():
            async with asyncio.timeout(TIMEOUT_SECONDS):
                names = set((await self._models.get()).models)
                await self._threads.run(self._producer.redis.ping)
            live = names
        self._model_names |= live
        failed_loops = background.unhealthy_loops()
        is_ready = not failed_loops and not self.is_draining
        is_serving = is_ready and bool(live)
        if (is_serving, failed_loops) != self._last:
            log.info("serving=%s models=%s", is_serving, ",".join(sorted(live)))
            if failed_loops:
                log.error("loops=%s are dead or late: restart this server", ",".join(failed_loops))
            self._last = is_serving, failed_loops
        for name in ("", *SERVICES):
            self.servicer.set(name, is_serving=is_serving)
        for name in self._model_names:
            self.servicer.set(f"model/{name}", is_serving=is_ready and name in live)
