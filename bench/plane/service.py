"""Convlens under load: `convlens up`, or its parts started one by one where payloads are stored in Redis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from bench.plane import processes, redis
from bench.plane.subject import DidNotRun, Subject
from convlens.local.valkey import free_port

ROLES: Final = {"convlens.server": "server", "convlens.worker": "worker", "convlens.local": "up", "valkey": "redis",
                "redis": "redis"}  # fmt: skip
PATIENCE: Final = 120.0
READY: Final = "ready: grpc "


def up(
    name: str, folder: Path, *flags: str, models: Sequence[str] = ("null=null",), env: Mapping[str, str] | None = None
) -> Subject:
    """Start `convlens up` and a client, both with the variables `env` in addition. Raises DidNotRun."""
    log = processes.new_log(folder, name)
    model_flags = [argument for model in models for argument in ("--model", model)]
    command = [sys.executable, "-m", "convlens.local.up", "--port", "0", "--log-level", "WARNING", *model_flags, *flags]
    server = processes.start(command, log, env=env)
    return _with_client(name, [server], log, env)


def parts(
    name: str, folder: Path, *, workers: Sequence[str] = ("null=null",), env: Mapping[str, str] | None = None,
    port: int = 0,
) -> Subject:  # fmt: skip
    """Start a Valkey, a server, a worker for each model of `workers`, and a client; payloads are in Redis.

    The Valkey is at `port`, or a free one. Raises DidNotRun.
    """
    log = processes.new_log(folder, name)
    data = log.with_suffix(".data")
    data.mkdir()
    port = port or free_port()
    variables = {"CONVLENS_REDIS_URL": f"redis://127.0.0.1:{port}/0", "CONVLENS_LOG_LEVEL": "WARNING", **(env or {})}
    python = [sys.executable, "-m"]
    commands = [redis.command(data, port), *([*python, "convlens.worker", "--model", model] for model in workers)]
    servers = [processes.start(command, log, env=variables) for command in commands]
    server = processes.start([*python, "convlens.server", "--port", "0"], log, env=variables)
    return _with_client(name, [server, *reversed(servers)], log)


def _with_client(
    name: str, servers: list[subprocess.Popen[str]], log: Path, env: Mapping[str, str] | None = None
) -> Subject:
    """Start a client; `servers` are in the order in which they are ended."""
    try:
        target = _ready_line(log, servers).split()[-1]
    except DidNotRun:
        for server in servers:
            processes.end(server)
        raise
    return Subject(name, servers, [sys.executable, "-m", "bench.plane.client", target], log, ROLES, env)


def _ready_line(log: Path, servers: Sequence[subprocess.Popen[str]]) -> str:
    """Wait for the line that a server prints when it is ready."""
    ends = monotonic() + PATIENCE
    while monotonic() < ends and all(server.poll() is None for server in servers):
        lines = log.read_text(errors="replace").splitlines()
        if ready := next((line for line in lines if READY in line), None):
            return ready
        sleep(0.1)
    raise DidNotRun(lines[-1] if lines else "it printed nothing")
