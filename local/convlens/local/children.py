"""Supervise a child process: log its output line by line, restart it when it dies, end it with this process."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from convlens.local.output import Output, problem_in

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
"""Seconds before a restart: doubled each time, reset once a process has run for longer than the longest."""
LINE_BYTES: Final = 1 << 20
LAST_LINES: Final = 20
"""Lines that are shown of a child that fails without saying why."""
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class ChildFailed(RuntimeError):
    """A child ended before it was ready."""


class Child:
    """A supervised process, one at a time. It is ready once a line of its output contains the text `ready`.

    It inherits the descriptors `inherited`; files that it creates are closed to other users.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        ready: str,
        env: dict[str, str],
        output: Output,
        inherited: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.command = list(command)
        self._marker = ready
        self._env = env
        self._output = output
        self._inherited = tuple(inherited)
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._last_error = ""
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.ready_line = ""

    async def start(self) -> str:
        """Start the process, wait until it is ready, and return the line that says so. Raises ChildFailed."""
        self._task = asyncio.create_task(self._run(), name=self.name)
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.is_set():
            ready.cancel()
            await self._task
            raise ChildFailed(f"{self.name} was stopped before it was ready")
        return self.ready_line

    async def stop(self, grace: float) -> None:
        """Send SIGTERM, kill after `grace` seconds, and do not restart."""
        self._stopping.set()
        if self._task is None:
            return
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self._task}, timeout=grace)
        if not done:
            self._output.report(self.name, f"did not end within {grace:g} s and is killed")
            self.kill()
        with contextlib.suppress(ChildFailed):
            await self._task

    def kill(self) -> None:
        """Kill the process and do not restart it."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            started = loop.time()
            self._process = await asyncio.create_subprocess_exec(
                *self.command, env=self._env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT, limit=LINE_BYTES, start_new_session=True,
                preexec_fn=_make_die_with_parent(), pass_fds=self._inherited, umask=0o077,
            )  # fmt: skip
            if self._stopping.is_set():
                self._signal(signal.SIGTERM)
            await self._forward_output(self._process)
            status = await self._process.wait()
            if self._stopping.is_set():
                return
            if not self._ready.is_set():
                raise ChildFailed(f"{self.name} ended with status {status} before it was ready: {self._reason()}")
            delay = FIRST_DELAY if loop.time() - started > LONGEST_DELAY else delay
            self._output.report(self.name, f"ended with status {status}; started again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def _reason(self) -> str:
        """Return the last error that the process logged; where there is none, show its last lines, return the last."""
        if self._last_error or not self._last_lines:
            return self._last_error or "it said nothing"
        for line in self._last_lines:
            self._output.show(self.name, line)
        return self._last_lines[-1]

    async def _forward_output(self, process: asyncio.subprocess.Process) -> None:
        """Write the output to the log until it is closed."""
        if process.stdout is None:
            return
        while True:
            try:
                line = (await process.stdout.readline()).decode(errors="replace")
            except ValueError:
                line = f"(a line of more than {LINE_BYTES} bytes is left out)\n"
            if not line:
                return
            # only `convlens up` itself prints "ready: ", so that a script that waits for it is not misled by a child
            text = line.removeprefix("ready: ").rstrip()
            self._output.write(self.name, text)
            if text:
                self._last_lines.append(text)
            if (problem := problem_in(text)) and problem[0] != "warning":
                self._last_error = problem[1]
            if self._marker in line and not self._ready.is_set():
                self.ready_line = line.strip()
                self._ready.set()


def _make_die_with_parent() -> Callable[[], None] | None:
    """Return a function to run in a new process that has Linux kill it when this process dies."""
    if _LIBC is None:
        return None
    parent, prctl = os.getpid(), _LIBC.prctl

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before prctl
            os._exit(1)

    return before_exec
