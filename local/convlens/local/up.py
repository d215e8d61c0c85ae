"""`convlens up`: a Valkey, workers and a server on this machine, looked after until SIGTERM or SIGINT, then drained."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convlens.jobs.payloads.own_folder import UnusableFolder
from convlens.jobs.runtime import descriptors
from convlens.jobs.runtime.redis_client import LedgerUnavailable, connect
from convlens.local import valkey
from convlens.local.certificates import NoAuthority, certificates, client_words
from convlens.local.children import Child, ChildFailed
from convlens.local.folders import Folders, folders
from convlens.local.settings import UpSettings

WORKER_GRACE: Final = 30.0
VALKEY_GRACE: Final = 10.0


class NoRedis(RuntimeError):
    """There is no Redis where one was said to be."""


def main(argv: list[str] | None = None) -> int:
    """Runs everything until told to stop."""
    settings = UpSettings.from_command_line("convlens up", sys.argv[1:] if argv is None else argv)
    descriptors.raise_limit()
    try:
        return asyncio.run(up(settings))
    except UnusableFolder as error:
        print(f"convlens up: {error}", file=sys.stderr)
        return 1


async def up(settings: UpSettings) -> int:
    """Starts everything, prints the ready line to stdout once it serves, and ends everything; the exit status."""
    stop = asyncio.Event()
    children: list[Child] = []

    def told() -> None:
        if stop.is_set():  # a second time: at once
            for child in children:
                child.kill()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)
    stopped = asyncio.create_task(stop.wait())
    with folders(settings) as places:
        health = settings.health_address or f"unix:{places.temporary}/health"
        starting = asyncio.create_task(_start(settings, places, health, children))
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        status = 0
        try:
            if starting.done():
                print(f"ready: grpc {settings.host}:{starting.result()}", flush=True)
                await stopped
        except (ChildFailed, valkey.NoValkey, NoRedis, NoAuthority) as error:
            print(f"convlens up: {error}", file=sys.stderr)
            status = 1
        finally:
            stopped.cancel()
            starting.cancel()
            await _stop(settings, children)
    return status


async def _start(settings: UpSettings, places: Folders, health: str, children: list[Child]) -> int:
    """Starts the children in the order they need one another; the port that is served on."""
    tls = _tls(settings)
    url = settings.redis_url or await _start_valkey(places, children)
    if settings.redis_url:
        await asyncio.to_thread(_reach, url)
    env = settings.environment(redis_url=url, payload_dir=places.payloads, reuse_port=settings.servers > 1, **tls)
    env["TMPDIR"] = str(places.temporary)

    def child(name: str, module: str, ready: str, more: dict[str, str]) -> Child:
        return Child(name, [sys.executable, "-m", module], ready, env | more, places.locks)

    name = settings.name or "worker"
    names = [f"{name}-{i}" for i in range(1, settings.workers + 1)] if settings.workers > 1 else [name]
    metrics = _metrics(settings.metrics_address)
    workers = [
        child(it, "convlens.worker", "ready: worker", {"CONVLENS_NAME": f"{it}-{os.getpid()}"} | seen)
        for it, seen in zip(names, metrics, strict=False)
    ]
    names = [f"server-{i}" for i in range(1, settings.servers + 1)] if settings.servers > 1 else ["server"]
    probes = [health if it is names[0] else f"{health}-{it}" for it in names]
    first, *others = servers = [
        child(it, "convlens.server", "ready: grpc", {"CONVLENS_HEALTH_ADDRESS": probe} | seen)
        for it, probe, seen in zip(names, probes, metrics, strict=False)
    ]
    children += [*workers, *servers]
    await asyncio.gather(*(child.start() for child in (*workers, first)))
    port = int(first.ready_line.rpartition(":")[2])
    for server in servers:
        server.command += ["--port", str(port)]  # where callers look for them, after a restart, too
    await asyncio.gather(*(server.start() for server in others))
    await asyncio.gather(*map(_serving, probes))
    return port


def _metrics(address: str) -> Iterator[dict[str, str]]:
    """For one process after another the variable that gives it a port of its own, counted on from that of `address`."""
    host, _, port = address.rpartition(":")
    for number in itertools.count(int(port or 0)):
        yield {"CONVLENS_METRICS_ADDRESS": address and f"{host}:{number if int(port) else 0}"}


def _tls(settings: UpSettings) -> dict[str, Path]:
    """The server's settings for mutual TLS with the certificates of `tls_dir`, where one is given."""
    if settings.tls_dir is None:
        return {}
    made = certificates(settings.tls_dir.expanduser().resolve(), [settings.host])
    print(f"only clients with a certificate are served: convlens {client_words(made)} …", file=sys.stderr, flush=True)
    return {
        "tls_cert": made.server.certificate,
        "tls_key": made.server.key,
        "tls_client_ca": made.ca.certificate,
    }


async def _start_valkey(places: Folders, children: list[Child]) -> str:
    """Starts a Valkey; its URL. A port that was free may be taken a moment later, so another is tried then."""
    password = secrets.token_hex(32)
    for _ in range(5):
        port = valkey.free_port()
        command = valkey.command(places.data, port, password)
        child = Child("valkey", command, valkey.READY, dict(os.environ), places.locks)
        try:
            await child.start()
        except ChildFailed as error:
            failed = error
        else:
            children.insert(0, child)
            return f"redis://:{password}@127.0.0.1:{port}/0"
    raise failed


def _reach(url: str) -> None:
    """Raises NoRedis, saying what to do, when there is no Redis at `url`."""
    try:
        connect(url).ping()
    except LedgerUnavailable as error:
        raise NoRedis(
            f"no Redis or Valkey answers at the --redis-url given: {error}; start it, or leave the flag out"
        ) from error


async def _serving(health: str) -> None:
    """Waits until the server says at its health address that it serves."""
    async with grpc.aio.insecure_channel(health, [("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest()
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async for reply in stub.Watch(request, wait_for_ready=True):
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return


async def _stop(settings: UpSettings, children: list[Child]) -> None:
    """Drains: the server first, whose callers wait for the workers, whose jobs are in Valkey."""
    servers, workers = ([it for it in children if f"convlens.{kind}" in it.command] for kind in ("server", "worker"))
    stores = [it for it in children if it not in (*servers, *workers)]
    for group, grace in ((servers, settings.drain_grace + 5), (workers, WORKER_GRACE), (stores, VALKEY_GRACE)):
        await asyncio.gather(*(child.stop(grace) for child in group))


if __name__ == "__main__":
    sys.exit(main())
