"""Implements grpc.health.v1 so that a watcher that does not read blocks nobody else.

grpc_health's own servicer writes to each watcher under the lock that setting a status needs: one that never reads
would freeze the statuses of all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_STATUS: Final[Any] = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc,unused-ignore]
    """Serves the status of each name; a watcher gets the latest one that it has not read yet."""

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
