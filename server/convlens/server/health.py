"""Keeps grpc.health.v1 up to date: NOT_SERVING without Redis, workers or background loops, and while draining."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convlens.jobs.queue.producer import Producer
from convlens.jobs.runtime import background
from convlens.jobs.runtime.background import Rounds
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
_STATUS: Final[Any] = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc,unused-ignore]
    """Serves the status of each name; a watcher gets the latest one that it has not read yet.

    grpc_health's own servicer writes to each watcher under the lock that setting a status needs: one that never reads
    would freeze the statuses of all others.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, Any] = {}
        self._changed = asyncio.Event()

    def set(self, name: str, *, is_serving: bool) -> None:
        """Set the status of a name, and wake the watchers if it differs."""
        status = _STATUS.SERVING if is_serving else _STATUS.NOT_SERVING
        if self._statuses.get(name) != status:
            self._statuses[name] = status
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the wire's name
        """Return the current status; NOT_FOUND for a name that was never set."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:200]!r} is known")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802, ARG002
        """Stream the current status and each change; SERVICE_UNKNOWN for a name that was not set yet."""
        last = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _STATUS.SERVICE_UNKNOWN)
            if status == last:
                await changed.wait()
                continue
            last = status
            yield health_pb2.HealthCheckResponse(status=status)


class Health:
    """Updates the status of "", of the three services, and of "model/NAME" for each model that was ever served."""

    def __init__(self, models: ModelCache, producer: Producer) -> None:
        self.servicer = HealthService()
        self.is_draining = False
        self._models = models
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
                await asyncio.get_running_loop().run_in_executor(None, self._producer.redis.ping)
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
