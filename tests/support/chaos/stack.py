"""The service as a stack of processes, each of which can be hurt, and each link of which can be spoilt."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
from parts import Part
from processes import until
from proxy import FaultProxy

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
"""The models that the victim alone serves; slow takes its time on the device."""


class Stack:
    """Valkey, a server, and the workers `victim` and `other`; with `shapes` one more, which computes real maps.

    Callers reach the server through `to_server`, the server reaches Valkey through `server_redis`, and the victim
    through `victim_redis`.
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
        faked = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.redis_clock)}
        faked |= {"FAKETIME_CACHE_DURATION": "1", "DONT_FAKE_MONOTONIC": "1"}
        self.redis = redis.Redis(port=redis_port, password=PASSWORD)
        self.valkey = Part("valkey", prepare_command(folder / "valkey", redis_port, PASSWORD), READY, folder, faked)
        self.server = self._python("convlens.server", self.server_redis.port, "--port", str(port))
        self.victim = self.worker("victim", "null=null", "mine=null", "slow=null,device_ms=700+0", proxied=True)
        self.other = self.worker("other", "null=null")
        self.shapes = self.worker("shapes", "shapes=shapes", "--max-batch-size", "1") if shapes else None
        self.known: set[str] = set()
        """The ids of all jobs that were ever asked for."""
        self.models = {"null", *VICTIMS, *(["shapes"] if shapes else [])}

    def worker(self, name: str, *words: str, proxied: bool = False, module: str = "convlens.worker") -> Part:
        """A worker of the models and flags in `words`, not yet started."""
        port = self.victim_redis.port if proxied else self.redis.connection_pool.connection_kwargs["port"]
        flags = [flag for word in words for flag in (("--model", word) if "=" in word else (word,))]
        return self._python(module, port, *flags, "--name", name, name=name)

    def _python(self, module: str, redis_port: int, *flags: str, name: str = "server") -> Part:
        settings = self._settings | {"redis_url": f"redis://:{PASSWORD}@127.0.0.1:{redis_port}/0"}
        if self.payloads:
            settings["payload_dir"] = self.payloads
        env = {f"CONVLENS_{key.upper()}": str(value) for key, value in settings.items()}
        path = [str(CLOCK), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
        env |= {"PYTHONPATH": os.pathsep.join(path), "CHAOS_CLOCK": str(self.clock)}
        return Part(name, [sys.executable, "-m", module, *flags], "ready: ", self._folder, env)

    @property
    def workers(self) -> list[Part]:
        """All of them."""
        return [it for it in (self.victim, self.other, self.shapes) if it is not None]

    def start(self) -> None:
        """Starts everything."""
        self.valkey.start()
        for part in (parts := [self.server, *self.workers]):
            part.launch()
        for part in parts:
            part.await_ready()
        self.await_whole()

    def await_whole(self, *also: str, seconds: float = 60) -> None:
        """Waits until every model is served, and those of `also`."""
        with Client(self.target, timeout=seconds, connect_timeout=seconds) as client:

            def whole() -> bool:
                with contextlib.suppress(Unavailable):
                    return {it.name for it in client.models()} >= self.models.union(also)
                return False

            until(whole, seconds)

    def stored(self) -> int:
        """Bytes of payloads, about."""
        if self.payloads is None:
            return self.redis.info("memory")["used_memory"]
        total = 0
        for path in self.payloads.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """Ends everything."""
        for part in (self.server, *self.workers, self.valkey):
            part.close()
        for proxy in (self.to_server, self.server_redis, self.victim_redis):
            proxy.close()
        self.redis.close()


@contextlib.contextmanager
def stacked(folder: Path, **options: Any) -> Iterator[Stack]:
    """A Stack for the length of a `with`."""
    stack = Stack(folder, **options)
    try:
        stack.start()
        yield stack
    finally:
        stack.close()
