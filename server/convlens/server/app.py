"""Starts the front, serves until SIGTERM or SIGINT, drains."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import REGISTRY

from convlens.jobs.payloads.own_folder import UnusableFolder
from convlens.jobs.runtime import checks, memory, metrics_endpoint
from convlens.server import metrics
from convlens.server.auth.reloading_file import Unusable
from convlens.server.auth.tls import server_credentials
from convlens.server.auth.tokens import Tokens
from convlens.server.checks import AT_START, ServerDeployment
from convlens.server.front import Front
from convlens.server.health import SERVICES, Health
from convlens.server.interceptors.auth import Gate
from convlens.server.interceptors.status import Boundary
from convlens.server.services import VERSION, Jobs, Models, Visualizations
from convlens.server.settings import ServerSettings
from convlens.server.transport import options
from convlens.server.transport.grpc_server import make_server
from convlens.server.transport.receive_budget import ReceiveBudget
from convlens.server.transport.receiving import Calls, Receiving
from convlens.v1 import job_pb2_grpc, model_pb2_grpc, visualization_pb2_grpc

log = logging.getLogger(__name__)

EXIT_GRPC_ENDED: Final = 70
"""The status of a server whose gRPC ended by itself, to be started again."""


async def serve(settings: ServerSettings) -> int:
    """Serves until told to stop; returns the exit status. The ready line goes to stdout once calls are taken."""
    try:
        credentials = server_credentials(settings)
        gate = Gate(Tokens(settings.tokens) if settings.tokens else None)
        front = Front(settings)
    except (Unusable, UnusableFolder) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says it all
        return 1
    checks.log_problems(AT_START, ServerDeployment(settings))
    health = Health(front)
    budget = ReceiveBudget(settings.max_receiving_bytes, settings.tenant_share, settings.max_request_bytes, front.trim)
    calls = Calls(settings.max_calls, settings.tenant_share)
    boundary = Boundary(VERSION)
    server = make_server(
        options.options(settings), [Receiving(VERSION, budget, calls, settings.max_request_bytes), boundary, gate]
    )
    visualization_pb2_grpc.add_VisualizationServiceServicer_to_server(Visualizations(front), server)  # type: ignore[no-untyped-call,unused-ignore]
    job_pb2_grpc.add_JobServiceServicer_to_server(Jobs(front), server)  # type: ignore[no-untyped-call,unused-ignore]
    model_pb2_grpc.add_ModelServiceServicer_to_server(Models(front), server)  # type: ignore[no-untyped-call,unused-ignore]
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    if settings.reflection:
        reflection.enable_server_reflection((*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    probes = make_server(options.PROBES)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, probes)
    address = f"{settings.host}:{settings.port}"
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        if settings.health_address:
            address = settings.health_address
            probes.add_insecure_port(address)
        address = settings.metrics_address
        metrics_endpoint.serve(address)
    except (RuntimeError, OSError):
        log.error("cannot listen on %s: is something else listening there?", address)  # noqa: TRY400 - as above
        return 1
    REGISTRY.register(metrics.Standing(front.ledger, settings.bounds, lambda: front.seen, lambda: front.draining))
    front.start()
    await health.update()
    await server.start()
    await probes.start()
    watch = asyncio.create_task(health.run())
    memory.freeze_objects()
    print(f"ready: grpc {settings.host}:{port}", flush=True)

    await _run_until_stopped(server, probes)
    log.info("draining for up to %g s", settings.drain_grace)
    front.draining = True
    watch.cancel()
    await health.update()
    await server.stop(settings.drain_grace)
    await probes.stop(0)
    await front.close()
    return 0


async def _run_until_stopped(*servers: grpc.aio.Server) -> None:
    """Waits for SIGTERM or SIGINT. Where gRPC ends by itself, so does the process, to be started again."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ended = [asyncio.create_task(it.wait_for_termination()) for it in servers]
    await asyncio.wait([asyncio.create_task(stop.wait()), *ended], return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():  # grpcio ends a server whose loop has failed, and may crash the process a little later
        log.critical("gRPC has ended: %s", [it.exception() for it in ended if it.done()])
        logging.shutdown()
        os._exit(EXIT_GRPC_ENDED)
