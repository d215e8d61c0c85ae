"""Wires the server together, serves until SIGTERM or SIGINT, and drains."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import REGISTRY

from convlens.jobs.payloads.own_folder import UnusableFolder
from convlens.jobs.queue.producer import Producer
from convlens.jobs.queue.reconciler import Reconciler
from convlens.jobs.runtime import checks, metrics_endpoint, process
from convlens.jobs.runtime.background import call_together
from convlens.jobs.runtime.redis_client import SERVER_TIMEOUT, connect
from convlens.server import metrics
from convlens.server.auth.authenticator import Authenticator
from convlens.server.auth.reloading_file import UnusableFile
from convlens.server.auth.tls import server_credentials
from convlens.server.auth.tokens import Tokens
from convlens.server.checks import STARTUP_CHECKS, ServerDeployment
from convlens.server.health import SERVICES, Health
from convlens.server.job_gateway import JobGateway
from convlens.server.model_cache import ModelCache
from convlens.server.responses import ResultReader
from convlens.server.services import VERSION
from convlens.server.services.jobs import JobService
from convlens.server.services.models import ModelService
from convlens.server.services.visualization import VisualizationService
from convlens.server.settings import ServerSettings
from convlens.server.transport import options
from convlens.server.transport.calls import CallInterceptor, CallLimiter
from convlens.server.transport.grpc_server import make_server
from convlens.server.transport.receive_budget import ReceiveBudget
from convlens.server.transport.send_budget import SendBudget
from convlens.server.waiters import Waiters
from convlens.v1 import job_pb2_grpc, model_pb2_grpc, visualization_pb2_grpc

log = logging.getLogger(__name__)

EXIT_GRPC_ENDED: Final = 70
"""Exit status of a server whose gRPC ended by itself; its supervisor restarts it."""


class Backend:
    """What the services use: the job queue, the model cache, and the event loop's threads for calls that block."""

    def __init__(self, settings: ServerSettings) -> None:
        """Connect to Redis and open the payload store. UnusableFolder where that is a folder that cannot be used."""
        threads = ThreadPoolExecutor(settings.io_threads, thread_name_prefix="io")
        asyncio.get_running_loop().set_default_executor(threads)
        self.producer = Producer(connect(settings.redis_url, SERVER_TIMEOUT), settings, settings.bounds)
        self.models = ModelCache(self.producer)
        self.gateway = JobGateway(settings, self.producer, self.models)
        self.waiters = Waiters(self.producer, self.gateway.read)
        self.results = ResultReader(self.producer, settings.chunk_bytes)
        self._reconciler = Reconciler(self.producer.redis, settings, settings.bounds)
        self._trimmer = process.Trimmer()

    def start(self) -> None:
        """Subscribe to notifications and start the reconciler."""
        self.waiters.start()
        self._reconciler.start()
        self._trimmer.start()

    async def close(self) -> None:
        """Stop all threads, the gateway's last: calls that end meanwhile leave their jobs by it."""
        await asyncio.to_thread(call_together, self._trimmer.stop, self._reconciler.stop, self.waiters.stop)
        await self.gateway.close()


async def serve(settings: ServerSettings) -> int:
    """Serve until stopped; return the exit status. Prints `ready: grpc HOST:PORT` once calls are accepted."""
    try:
        credentials = server_credentials(settings)
        authenticator = Authenticator(Tokens(settings.tokens) if settings.tokens else None)
        backend = Backend(settings)
    except (UnusableFile, UnusableFolder) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says it all
        return 1
    checks.log_problems(STARTUP_CHECKS, ServerDeployment(settings))
    health = Health(backend.models, backend.producer)
    server = _make_grpc_server(settings, backend, health, authenticator)
    probe_server = make_server(options.PROBES)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, probe_server)
    address = f"{settings.host}:{settings.port}"
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        if settings.health_address:
            address = settings.health_address
            probe_server.add_insecure_port(address)
        address = settings.metrics_address
        metrics_endpoint.serve(address)
    except (RuntimeError, OSError) as error:
        log.error("cannot listen on %s: %s", address, error)  # noqa: TRY400 - as above
        return 1
    REGISTRY.register(
        metrics.QueueCollector(
            backend.producer, settings.bounds, lambda: backend.models.known_names, lambda: health.is_draining
        )
    )
    backend.start()
    await health.update()
    await server.start()
    await probe_server.start()
    updating_health = asyncio.create_task(health.run())
    process.freeze_objects()
    print(f"ready: grpc {settings.host}:{port}", flush=True)

    await _run_until_stopped(server, probe_server)
    log.info("draining for up to %g s", settings.drain_grace)
    health.is_draining = True
    updating_health.cancel()
    await health.update()
    await server.stop(settings.drain_grace)
    await probe_server.stop(0)
    await backend.close()
    return 0


def _make_grpc_server(
    settings: ServerSettings, backend: Backend, health: Health, authenticator: Authenticator
) -> grpc.aio.Server:
    """Make the server with its bounds and services."""
    receive_budget = ReceiveBudget(settings.max_receiving_bytes, settings.tenant_share, settings.max_request_bytes)
    send_budget = SendBudget(settings.max_sending_bytes, settings.tenant_share)
    limiter = CallLimiter(settings.max_calls, settings.tenant_share)
    calls = CallInterceptor(VERSION, authenticator, receive_budget, limiter, settings.max_request_bytes)
    server = make_server(options.options(settings), [calls])
    gateway, waiters, results = backend.gateway, backend.waiters, backend.results
    visualizations = VisualizationService(gateway, waiters, results, send_budget)
    visualization_pb2_grpc.add_VisualizationServiceServicer_to_server(visualizations, server)  # type: ignore[no-untyped-call,unused-ignore]
    jobs = JobService(gateway, waiters, results, send_budget)
    job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)  # type: ignore[no-untyped-call,unused-ignore]
    models = ModelService(backend.models, settings)
    model_pb2_grpc.add_ModelServiceServicer_to_server(models, server)  # type: ignore[no-untyped-call,unused-ignore]
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    if settings.reflection:
        reflection.enable_server_reflection((*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    return server


async def _run_until_stopped(*servers: grpc.aio.Server) -> None:
    """Wait for SIGTERM or SIGINT. Exit at once where gRPC ends by itself, so that a supervisor restarts the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    terminations = [asyncio.create_task(server.wait_for_termination()) for server in servers]
    await asyncio.wait([asyncio.create_task(stop.wait()), *terminations], return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():  # grpcio ends a server whose loop has failed, and may crash the process a little later
        log.critical("gRPC has ended: %s", [each.exception() for each in terminations if each.done()])
        logging.shutdown()
        os._exit(EXIT_GRPC_ENDED)
