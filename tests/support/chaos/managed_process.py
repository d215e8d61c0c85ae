"""A process that can be killed, paused and started again under the same name."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from processes import until


class ManagedProcess:
    """A process of `command`. Its output is appended to a log; it is ready once the log holds `ready`."""

    def __init__(self, name: str, command: Sequence[str], ready: str, folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self._command = list(command)
        self._ready = ready
        self._env = os.environ | env
        self.log = folder / f"{name}.log"
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the present process, or of the last one."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False before the first start and after the process has ended."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process and return at once."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            # The child inherits ignored signals (SIGXFSZ), so a write beyond RLIMIT_FSIZE fails instead of killing it.
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=log, restore_signals=False, start_new_session=True
            )

    def await_ready(self, seconds: float = 60) -> None:
        """Wait until the log since the last launch says that the process is ready."""

        def is_ready() -> bool:
            text = self.log.read_bytes()[self._log_start :].decode(errors="replace")
            assert self.is_running, f"{self.name} ended before it was ready:\n{text}"
            return self._ready in text

        until(is_ready, seconds)

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.launch()
        self.await_ready()

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Send SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send any other signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """Wait for the end of the process and return its exit status."""
        return self._process.wait(seconds)

    def terminate(self, seconds: float = 60) -> int:
        """Send SIGTERM, wait for the end and return the exit status."""
        self._process.terminate()
        return self.wait(seconds)

    def close(self) -> None:
        """End the process, also when it is paused."""
        if self.is_running:
            self.resume()
            self.kill()
