"""`convlens up`: start and supervise Valkey, workers, servers and the gateway; drain them at SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from convlens.jobs.payloads.own_folder import UnusableFolder
from convlens.jobs.runtime import process
from convlens.jobs.runtime.command_line import SettingsCommand
from convlens.jobs.runtime.redis_client import RedisUnavailable, connect
from convlens.local import valkey
from convlens.local.certificates import Certificates, NoAuthority, client_flags, ensure_certificates
from convlens.local.children import Child, ChildFailed
from convlens.local.folders import Folders, open_folders
from convlens.local.output import LOG, Output
from convlens.local.settings import STDERR, UpSettings

WEB_GRACE: Final = 10.0
WORKER_GRACE: Final = 30.0
VALKEY_GRACE: Final = 10.0


class NoRedis(RuntimeError):
    """No Redis answers at the given URL."""


class UnusableLog(RuntimeError):
    """The log file cannot be written."""


SUMMARY: Final = """Run everything on this machine: Valkey, workers and servers. Ctrl-C or SIGTERM ends it.

Prints `ready: grpc HOST:PORT` to stdout once it serves, and with --web then `ready: http HOST:PORT`, the address of the
page. Without --model it serves the bundled model shapes; what models there are: `convlens worker --help`.

Examples:

  convlens up

  convlens up --model vgg16=imagenet --data-dir data

  convlens up --web

  convlens up --model scan=scan.keras,preprocess=unit --tls-dir tls
"""


def run(settings: UpSettings) -> int:
    """Run everything until a signal; return the exit status."""
    process.raise_descriptor_limit()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # not that a connection to a server that ends was closed
    try:
        return asyncio.run(up(settings))
    except (UnusableFolder, UnusableLog) as error:
        print(f"convlens up: {error}", file=sys.stderr)
        return 1


main: Final = SettingsCommand("convlens up", UpSettings, run, SUMMARY)


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
    with open_folders(settings) as folders, _open_output(settings, folders) as output:
        health = settings.health_address or f"unix:{folders.temporary}/health"
        starting = asyncio.create_task(_start(settings, folders, health, children, output))
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        reason = ""
        try:
            if starting.done():
                print(*starting.result(), sep="\n", flush=True)
                await stopped
        except (ChildFailed, valkey.NoValkey, NoRedis, NoAuthority) as error:
            reason = str(error)  # the last line of stderr, after those of the children that end now
        finally:
            stopped.cancel()
            starting.cancel()
            await _stop(settings, children)
    if reason:
        print(f"convlens up: {reason}", file=sys.stderr)
    return int(bool(reason))


@contextlib.contextmanager
def _open_output(settings: UpSettings, folders: Folders) -> Iterator[Output]:
    """Open the log for the duration of a `with`, and say once where it is. Raises UnusableLog."""
    path = settings.log or (folders.data if settings.data_dir else folders.temporary) / LOG
    try:
        output = Output(None if path == STDERR else path.expanduser().absolute())
    except OSError as error:
        raise UnusableLog(f"--log {path} cannot be written: {error.strerror}") from error
    if path != STDERR:
        print(f"convlens up: starting; the log of its processes is {path}", file=sys.stderr, flush=True)
    with contextlib.closing(output):
        yield output


async def _start(
    settings: UpSettings, folders: Folders, health: str, children: list[Child], output: Output
) -> list[str]:
    """Start the children in the order of their dependencies and return the lines that say what is ready."""
    pairs = _certificates(settings)
    tls = _tls_settings(pairs) if pairs else {}
    url = settings.redis_url or await _start_valkey(folders, children, output)
    if settings.redis_url:
        await asyncio.to_thread(_check_redis, url)
    env = settings.environment(redis_url=url, payload_dir=folders.payloads, reuse_port=settings.servers > 1, **tls)
    env["TMPDIR"] = str(folders.temporary)

    def child(name: str, module: str, ready: str, more: dict[str, str]) -> Child:
        return Child(name, [sys.executable, "-m", module], ready, env | more, output, folders.locks)

    name = settings.name or "worker"
    worker_names = [f"{name}-{i}" for i in range(1, settings.workers + 1)] if settings.workers > 1 else [name]
    server_names = [f"server-{i}" for i in range(1, settings.servers + 1)] if settings.servers > 1 else ["server"]
    addresses = metrics_addresses(settings.metrics_address, settings.servers + settings.workers)
    probes = [health if name is server_names[0] else f"{health}-{name}" for name in server_names]
    first, *others = servers = [
        child(
            name, "convlens.server", "ready: grpc",
            {"CONVLENS_HEALTH_ADDRESS": probe, "CONVLENS_METRICS_ADDRESS": metrics},
        )
        for name, probe, metrics in zip(server_names, probes, addresses, strict=False)
    ]  # fmt: skip
    workers = [
        child(
            name, "convlens.worker", "ready: worker",
            {"CONVLENS_NAME": f"{name}-{os.getpid()}", "CONVLENS_METRICS_ADDRESS": metrics},
        )
        for name, metrics in zip(worker_names, addresses[settings.servers :], strict=True)
    ]  # fmt: skip
    children += [*workers, *servers]
    await asyncio.gather(*(child.start() for child in (*workers, first)))
    port = int(first.ready_line.rpartition(":")[2])
    for server in servers:
        server.command += ["--port", str(port)]  # the same port after a restart
    await asyncio.gather(*(server.start() for server in others))
    await asyncio.gather(*map(_wait_until_serving, probes))
    lines = [f"ready: grpc {settings.host}:{port}"]
    if settings.web:
        gateway = child("web", "convlens.web", "ready: http", {})
        gateway.command += ["--server", f"{_reachable(settings.host)}:{port}", *(client_flags(pairs) if pairs else ())]
        gateway.command += [flag for name in settings.web_allowed_hosts for flag in ("--allowed-host", name)]
        gateway.command += ["--port", str(settings.web_port)]
        children.append(gateway)
        lines.append(await gateway.start())
        gateway.command[-1] = lines[-1].rpartition(":")[2]  # the same port after a restart
        print(f"explore in a browser: http://{lines[-1].split()[-1]}", file=sys.stderr, flush=True)
    return lines


def _reachable(host: str) -> str:
    """Return the address at which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - to call, not to listen on


def metrics_addresses(address: str, count: int) -> Sequence[str]:
    """Return the metrics addresses of `count` processes, servers first: ports count up from that of `address`.

    Port 0 is a free one for each; an empty address is none.
    """
    host, _, port = address.rpartition(":")
    return [f"{host}:{int(port) + i if int(port) else 0}" if address else "" for i in range(count)]


def _certificates(settings: UpSettings) -> Certificates | None:
    """Return the certificates in `tls_dir`, if given, and say how clients use theirs."""
    if settings.tls_dir is None:
        return None
    pairs = ensure_certificates(settings.tls_dir.expanduser().resolve(), [settings.host])
    flags = " ".join(client_flags(pairs))
    print(f"only clients with a certificate are served: convlens {flags} …", file=sys.stderr, flush=True)
    return pairs


def _tls_settings(pairs: Certificates) -> dict[str, Path]:
    """Return the server's settings for mutual TLS."""
    return {
        "tls_cert": pairs.server.certificate,
        "tls_key": pairs.server.key,
        "tls_client_ca": pairs.ca.certificate,
    }


async def _start_valkey(folders: Folders, children: list[Child], output: Output) -> str:
    """Start a Valkey and return its URL. Retry with another port, since a free port may be in use a moment later."""
    password = secrets.token_hex(32)
    for _ in range(5):
        port = valkey.free_port()
        command = valkey.prepare_command(folders.data, port, password)
        child = Child("valkey", command, valkey.READY, dict(os.environ), output, folders.locks)
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
    import grpc  # reads GRPC_VERBOSITY, which main() has set
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with grpc.aio.insecure_channel(health, [("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest()
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async for reply in stub.Watch(request, wait_for_ready=True):
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return


async def _stop(settings: UpSettings, children: list[Child]) -> None:
    """Drain the gateway, which calls servers, these, whose callers wait for workers, these, and Valkey, their store."""
    gateways, servers, workers = (
        [child for child in children if f"convlens.{kind}" in child.command] for kind in ("web", "server", "worker")
    )
    stores = [child for child in children if child not in (*gateways, *servers, *workers)]
    for group, grace in (
        (gateways, WEB_GRACE),
        (servers, settings.drain_grace + 5),
        (workers, WORKER_GRACE),
        (stores, VALKEY_GRACE),
    ):
        await asyncio.gather(*(child.stop(grace) for child in group))


if __name__ == "__main__":
    sys.exit(main())
