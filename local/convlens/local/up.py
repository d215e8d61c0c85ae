"""`convlens up`: start and supervise Valkey, workers and servers on this machine; drain them at SIGTERM or SIGINT."""

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
from convlens.jobs.runtime.redis_client import RedisUnavailable, connect
from convlens.local import valkey
from convlens.local.certificates import NoAuthority, client_flags, ensure_certificates
from convlens.local.children import Child, ChildFailed
from convlens.local.folders import Folders, open_folders
from convlens.local.settings import UpSettings

WORKER_GRACE: Final = 30.0
VALKEY_GRACE: Final = 10.0


class NoRedis(RuntimeError):
    """No Redis answers at the given URL."""


def main(argv: list[str] | None = None) -> int:
    """Run everything until a signal."""
    settings = UpSettings.from_command_line("convlens up", sys.argv[1:] if argv is None else argv)
    descriptors.raise_limit()
    try:
        return asyncio.run(up(settings))
    except UnusableFolder as error:
        print(f"convlens up: {error}", file=sys.stderr)
        return 1


async def up(settings: UpSettings) -> int:
    """Start everything, print the ready line to stdout, wait for a signal, drain, and return the exit status."""
    stop = asyncio.Event()
    children: list[Child] = []

    def on_signal() -> None:
        if stop.is_set():  # the second signal kills
            for child in children:
                child.kill()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    stopped = asyncio.create_task(stop.wait())
    with open_folders(settings) as folders:
        health = settings.health_address or f"unix:{folders.temporary}/health"
        starting = asyncio.create_task(_start(settings, folders, health, children))
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


async def _start(settings: UpSettings, folders: Folders, health: str, children: list[Child]) -> int:
    """Start the children in the order of their dependencies and return the port."""
    tls = _tls_settings(settings)
    url = settings.redis_url or await _start_valkey(folders, children)
    if settings.redis_url:
        await asyncio.to_thread(_check_redis, url)
    env = settings.environment(redis_url=url, payload_dir=folders.payloads, reuse_port=settings.servers > 1, **tls)
    env["TMPDIR"] = str(folders.temporary)

    def child(name: str, module: str, ready: str, more: dict[str, str]) -> Child:
        return Child(name, [sys.executable, "-m", module], ready, env | more, folders.locks)

    name = settings.name or "worker"
    names = [f"{name}-{i}" for i in range(1, settings.workers + 1)] if settings.workers > 1 else [name]
    metrics = _metrics_variables(settings.metrics_address)
    workers = [
        child(name, "convlens.worker", "ready: worker", {"CONVLENS_NAME": f"{name}-{os.getpid()}"} | variables)
        for name, variables in zip(names, metrics, strict=False)
    ]
    names = [f"server-{i}" for i in range(1, settings.servers + 1)] if settings.servers > 1 else ["server"]
    probes = [health if name is names[0] else f"{health}-{name}" for name in names]
    first, *others = servers = [
        child(name, "convlens.server", "ready: grpc", {"CONVLENS_HEALTH_ADDRESS": probe} | variables)
        for name, probe, variables in zip(names, probes, metrics, strict=False)
    ]
    children += [*workers, *servers]
    await asyncio.gather(*(child.start() for child in (*workers, first)))
    port = int(first.ready_line.rpartition(":")[2])
    for server in servers:
        server.command += ["--port", str(port)]  # the same port after a restart
    await asyncio.gather(*(server.start() for server in others))
    await asyncio.gather(*map(_wait_until_serving, probes))
    return port


def _metrics_variables(address: str) -> Iterator[dict[str, str]]:
    """Yield the variable with the metrics address of one process after another, on ports counting up from `address`."""
    host, _, port = address.rpartition(":")
    for number in itertools.count(int(port or 0)):
        yield {"CONVLENS_METRICS_ADDRESS": address and f"{host}:{number if int(port) else 0}"}


def _tls_settings(settings: UpSettings) -> dict[str, Path]:
    """Return the server's settings for mutual TLS with the certificates in `tls_dir`, if given."""
    if settings.tls_dir is None:
        return {}
    pairs = ensure_certificates(settings.tls_dir.expanduser().resolve(), [settings.host])
    print(f"only clients with a certificate are served: convlens {client_flags(pairs)} …", file=sys.stderr, flush=True)
    return {
        "tls_cert": pairs.server.certificate,
        "tls_key": pairs.server.key,
        "tls_client_ca": pairs.ca.certificate,
    }


async def _start_valkey(folders: Folders, children: list[Child]) -> str:
    """Start a Valkey and return its URL. Retry with another port, since a free port may be in use a moment later."""
    password = secrets.token_hex(32)
    for _ in range(5):
        port = valkey.free_port()
        command = valkey.prepare_command(folders.data, port, password)
        child = Child("valkey", command, valkey.READY, dict(os.environ), folders.locks)
        try:
            await child.start()
        except ChildFailed as error:
            failed = error
        else:
            children.insert(0, child)
            return f"redis://:{password}@127.0.0.1:{port}/0"
    raise failed


def _check_redis(url: str) -> None:
    """Raise NoRedis when no Redis answers at `url`."""
    try:
        connect(url).ping()
    except RedisUnavailable as error:
        raise NoRedis(
            f"no Redis or Valkey answers at the --redis-url given: {error}; start it, or leave the flag out"
        ) from error


async def _wait_until_serving(health: str) -> None:
    """Wait until the server reports SERVING at its health address."""
    async with grpc.aio.insecure_channel(health, [("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest()
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async for reply in stub.Watch(request, wait_for_ready=True):
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return


async def _stop(settings: UpSettings, children: list[Child]) -> None:
    """Drain servers first, whose callers wait for workers, then workers, whose jobs are in Valkey, then Valkey."""
    servers, workers = (
        [child for child in children if f"convlens.{kind}" in child.command] for kind in ("server", "worker")
    )
    stores = [child for child in children if child not in (*servers, *workers)]
    for group, grace in ((servers, settings.drain_grace + 5), (workers, WORKER_GRACE), (stores, VALKEY_GRACE)):
        await asyncio.gather(*(child.stop(grace) for child in group))


if __name__ == "__main__":
    sys.exit(main())
