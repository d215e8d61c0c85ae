"""A service under load: its processes and its client's, and what one workload costs each of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.plane import processes
from bench.plane.environments import interpreter
from bench.plane.load import Report, Workload
from convlens.local.valkey import free_port


class DidNotRun(RuntimeError):
    """A service or its client ended or never answered; the message is its log's last line."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One workload's report and costs."""

    report: Report
    cpu: dict[str, float]
    """Seconds by role."""
    others: float
    """The share of the machine's CPU that unrelated programs used."""


class Subject:
    """A running service with a client process of its own."""

    def __init__(
        self, name: str, servers: Sequence[subprocess.Popen[str]], client: Sequence[str | Path], log: Path,
        roles: Mapping[str, str], env: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """`client` is the client's command, `env` its variables in addition.

        `roles` name the servers' processes, see processes.cpu_seconds.
        """
        self.name = name
        self._log = log
        self._servers = list(servers)
        self._roles = roles
        self._client = processes.start(client, log, pipes=True, env=env)
        try:
            self._line()
        except DidNotRun:
            self.close()
            raise

    def run(self, workload: Workload) -> Measured:
        """Run a workload in the client process. Raises DidNotRun."""
        before, (used, capacity) = self._cpu(), processes.machine_seconds()
        assert self._client.stdin
        print(json.dumps(asdict(workload)), file=self._client.stdin, flush=True)
        report = Report(**json.loads(self._line()))
        after, (used_now, capacity_now) = self._cpu(), processes.machine_seconds()
        cpu = {role: after[role] - before.get(role, 0.0) for role in after}
        others = (used_now - used - sum(cpu.values())) / max(capacity_now - capacity, 1e-9)
        return Measured(report, cpu, max(0.0, others))

    def close(self) -> None:
        """End client and servers."""
        for process in (self._client, *self._servers):
            processes.end(process)

    def _cpu(self) -> dict[str, float]:
        client = processes.cpu_seconds([self._client.pid], {"": "client"})
        return client | processes.cpu_seconds([server.pid for server in self._servers], self._roles)

    def _line(self) -> str:
        assert self._client.stdout
        if line := self._client.stdout.readline():
            return line
        log_lines = self._log.read_text(errors="replace").strip().splitlines()
        raise DidNotRun(log_lines[-1] if log_lines else "it ended without output")


def peer(name: str, folder: Path, *settings: str, roles: Mapping[str, str] | None = None) -> Subject:
    """A peer in its own environment: `server PORT SETTINGS…` and `client PORT` of its folder. Raises DidNotRun."""
    python = interpreter(name)
    port = str(free_port())
    log = processes.new_log(folder, name)
    module = f"bench.plane.peers.{name}"
    server = processes.start([python, "-m", f"{module}.server", port, *settings], log)
    return Subject(name, [server], [python, "-m", f"{module}.client", port], log, roles or {"": "server"})
