"""What a service uses under abuse: memory of processes, bytes in Redis, and latency of an ordinary caller."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import redis

from convlens.client import Client, ConvlensError, Saliency

MIB = 1 << 20
PHOTO = np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)
"""A small photo that no other test sends."""


def resident(process) -> int:
    """Resident memory of a process in bytes (VmRSS)."""
    return _status(process, "VmRSS")


def peak(process) -> int:
    """Peak resident memory of a process in bytes, since its start or reset_peak() (VmHWM)."""
    return _status(process, "VmHWM")


def reset_peak(process) -> None:
    """Set the peak of a process to its present resident memory."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def _status(process, name) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def stored_bytes(url) -> int:
    """Bytes of all keys in Redis; unlike `used_memory`, without connections and scripts."""
    with redis.Redis.from_url(url) as client:
        return sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(count=1000))


class BackgroundCaller:
    """A context manager that makes one small call after another in a thread and records their durations and errors."""

    def __init__(self, target, model="null", pause=0.05, **options) -> None:
        self._client = Client(target, timeout=30, **options)
        self._model = model
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seconds: list[float] = []
        """Duration of each call."""
        self.errors: list[ConvlensError] = []

    @property
    def slowest(self) -> float:
        """Duration of the longest call in seconds."""
        return max(self.seconds)

    def call(self) -> float:
        """Make one call and return its duration in seconds."""
        began = time.monotonic()
        self._client.visualize(PHOTO, [Saliency()], model=self._model, fresh=True)
        return time.monotonic() - began

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.call()
            except ConvlensError as error:
                self.errors.append(error)
            self.seconds.append(time.monotonic() - began)
            self._stop.wait(self._pause)

    def __enter__(self):
        self.call()  # connects and fetches the model card
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()
