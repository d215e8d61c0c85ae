"""One part of the service as a process that can be hurt, ended, and started again under the same name."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from processes import until


class Part:
    """A process of `command`; its output goes to a log, and it is ready once that holds `ready`."""

    def __init__(self, name: str, command: Sequence[str], ready: str, folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self._command = list(command)
        self._ready = ready
        self._env = os.environ | env
        self.log = folder / f"{name}.log"
        self._from = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process there is, or was last."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """False before the first start, and once it has ended."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Starts it and returns at once."""
        self._from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            # What this process ignores stays ignored: a write beyond RLIMIT_FSIZE is then an error and no death.
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=log, restore_signals=False, start_new_session=True
            )

    def await_ready(self, seconds: float = 60) -> None:
        """Waits until it says that it is ready."""

        def said() -> bool:
            text = self.log.read_bytes()[self._from :].decode(errors="replace")
            assert self.running, f"{self.name} ended before it was ready:\n{text}"
            return self._ready in text

        until(said, seconds)

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        self.launch()
        self.await_ready()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Any other signal."""
        self._process.send_signal(number)

    def ended(self, seconds: float = 60) -> int:
        """Waits until it ends; the exit status."""
        return self._process.wait(seconds)

    def terminate(self, seconds: float = 60) -> int:
        """SIGTERM, and the exit status once it has ended."""
        self._process.terminate()
        return self.ended(seconds)

    def close(self) -> None:
        """Ends it whatever state it is in."""
        if self.running:
            self.resume()
            self.kill()
