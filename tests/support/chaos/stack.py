"""The whole service as processes that can be killed and paused, with a fault proxy in each link."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
from processes import until
from proxy import FaultProxy

from chaos.managed_process import ManagedProcess
from convlens.client import Client, Unavailable
from convlens.local.valkey import READY, free_port, prepare_command

PASSWORD = "chaos"

LEASE = 2.0
SETTINGS = {
    "lease": LEASE, "reconcile_interval": 0.2, "drain_grace": 20, "result_ttl": 600,
    "answered_ttl": 600, "chunk_bytes": 65536,
}  # fmt: skip
CLOCK = Path(__file__).parent / "clock"
FAKETIME = Path(find_spec("libfaketime").origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
SUPPORT = Path(__file__).parents[1]
VICTIMS = ("mine", "slow")
"""The models that only the victim serves; a batch of `slow` takes 700 ms on the device."""


class Stack:
    """Valkey, a server, and the workers `victim` and `other`; with `shapes` a third worker, which computes real maps.

    The proxy `to_server` is between callers and the server, `server_redis` between the server and Valkey, and
    `victim_redis` between the victim and Valkey.
    """

    def __init__(
        self,
        folder: Path,
        *,
        shapes: bool = False,
        payloads_in_folder: bool = False,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._folder = folder
        self._settings = SETTINGS | dict(settings or {})
        (folder / "valkey").mkdir(parents=True)
        self.payloads = folder / "payloads" if payloads_in_folder else None
        redis_port, port = free_port(), free_port()
        self.to_server, self.server_redis, self.victim_redis = map(FaultProxy, (port, redis_port, redis_port))
        self.target = f"127.0.0.1:{self.to_server.port}"
        self.clock = folder / "clock"
        self.clock.write_text("0")
        self.redis_clock = folder / "redis-clock"
        self.redis_clock.write_text("+0\n")
        clock_env = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.redis_clock)}
        clock_env |= {"FAKETIME_CACHE_DURATION": "1", "DONT_FAKE_MONOTONIC": "1"}
        self.redis = redis.Redis(port=redis_port, password=PASSWORD)
        valkey_command = prepare_command(folder / "valkey", redis_port, PASSWORD)
        self.valkey = ManagedProcess("valkey", valkey_command, READY, folder, clock_env)
        self.server = self._python("convlens.server", self.server_redis.port, "--port", str(port))
        self.victim = self.worker("victim", "null=null", "mine=null", "slow=null,device_ms=700+0", proxied=True)
        self.other = self.worker("other", "null=null")
        self.shapes = self.worker("shapes", "shapes=shapes", "--max-batch-size", "1") if shapes else None
        self.job_ids: set[str] = set()
        """The ids of all jobs that callers have submitted."""
        self.models = {"null", *VICTIMS, *(["shapes"] if shapes else [])}

    def worker(
        self, name: str, *arguments: str, proxied: bool = False, module: str = "convlens.worker"
    ) -> ManagedProcess:
        """A worker, not yet started, of the models (`NAME=SOURCE`) and flags in `arguments`."""
        port = self.victim_redis.port if proxied else self.redis.connection_pool.connection_kwargs["port"]
        flags = [flag for text in arguments for flag in (("--model", text) if "=" in text else (text,))]
        return self._python(module, port, *flags, "--name", name, name=name)

    def _python(self, module: str, redis_port: int, *flags: str, name: str = "server") -> ManagedProcess:
        settings = self._settings | {"redis_url": f"redis://:{PASSWORD}@127.0.0.1:{redis_port}/0"}
        if self.payloads:
            settings["payload_dir"] = self.payloads
        env = {f"CONVLENS_{key.upper()}": str(value) for key, value in settings.items()}
        path = [str(CLOCK), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
        env |= {"PYTHONPATH": os.pathsep.join(path), "CHAOS_CLOCK": str(self.clock)}
        return ManagedProcess(name, [sys.executable, "-m", module, *flags], "ready: ", self._folder, env)

    @property
    def workers(self) -> list[ManagedProcess]:
        """The workers that start() starts."""
        return [worker for worker in (self.victim, self.other, self.shapes) if worker is not None]

    def start(self) -> None:
        """Start all processes and wait until every model is served."""
        self.valkey.start()
        for process in (processes := [self.server, *self.workers]):
            process.launch()
        for process in processes:
            process.await_ready()
        self.await_models()

    def await_models(self, *more: str, seconds: float = 60) -> None:
        """Wait until the models of this stack, and those in `more`, are served."""
        with Client(self.target, timeout=seconds, connect_timeout=seconds) as client:

            def are_served() -> bool:
                with contextlib.suppress(Unavailable):
                    return {model.name for model in client.models()} >= self.models.union(more)
                return False

            until(are_served, seconds)

    def payload_bytes(self) -> int:
        """The approximate size of all payloads in bytes."""
        if self.payloads is None:
            return self.redis.info("memory")["used_memory"]
        total = 0
        for path in self.payloads.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """End all processes and proxies."""
        for process in (self.server, *self.workers, self.valkey):
            process.close()
        for proxy in (self.to_server, self.server_redis, self.victim_redis):
            proxy.close()
        self.redis.close()


@contextlib.contextmanager
def running_stack(folder: Path, **options: Any) -> Iterator[Stack]:
    """Start a Stack, yield it, and close it."""
    stack = Stack(folder, **options)
    try:
        stack.start()
        yield stack
    finally:
        stack.close()
