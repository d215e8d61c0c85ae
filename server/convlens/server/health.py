"""grpc.health.v1 that tells the truth: about Redis, about live workers, about background loops, about draining."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from convlens.jobs.runtime import background
from convlens.jobs.runtime.background import Rounds
from convlens.server.front import Front
from convlens.server.health_service import HealthService
from convlens.v1 import job_pb2, model_pb2, visualization_pb2

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 10.0
"""A look that takes longer has found nothing that is well."""
SERVICES: Final = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (visualization_pb2, "VisualizationService"),
        (job_pb2, "JobService"),
        (model_pb2, "ModelService"),
    )
)


class Health:
    """Keeps the health service up to date: "" and the three services, and "model/NAME" for each model seen."""

    def __init__(self, front: Front) -> None:
        self.servicer = HealthService()
        self._front = front
        self._models: set[str] = set()
        self._last: tuple[bool, list[str]] | None = None
        self._looks = Rounds("health")

    async def run(self) -> None:
        """Looks every second, until cancelled."""
        while True:
            await self.update()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def update(self) -> None:
        """One look; where it fails or takes too long, nothing is served."""
        live: set[str] = set()
        with self._looks.guard():
            async with asyncio.timeout(LOOK_SECONDS):
                models = set((await self._front.live()).models)
                await self._front.call(self._front.ledger.redis.ping)
            live = models
        self._models |= live
        unwell = background.unhealthy_loops()
        able = not unwell and not self._front.draining
        healthy = able and bool(live)
        if (healthy, unwell) != self._last:
            log.info("serving=%s models=%s", healthy, ",".join(sorted(live)))
            if unwell:
                log.error("loops=%s are dead or late: restart this server", ",".join(unwell))
            self._last = healthy, unwell
        for name in ("", *SERVICES):
            self.servicer.set(name, is_serving=healthy)
        for model in self._models:
            self.servicer.set(f"model/{model}", is_serving=able and model in live)
