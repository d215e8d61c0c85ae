"""Start processes, read the CPU time of them and their descendants from /proc, and end them. Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS: Final = os.sysconf("SC_CLK_TCK")
ROOT: Final = Path(__file__).parents[2]
GRACE: Final = 10.0


def start(
    command: Sequence[str | Path], log: Path, *, pipes: bool = False, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a process in the repository's root, its output appended to `log`; `pipes`: stdin and stdout are pipes."""
    with log.open("a", encoding="utf-8") as stderr:
        pipe = subprocess.PIPE if pipes else None
        return subprocess.Popen(
            [str(argument) for argument in command], cwd=ROOT, env={**os.environ, **(env or {})}, text=True,
            stdin=pipe or subprocess.DEVNULL, stdout=pipe or stderr, stderr=stderr,
        )  # fmt: skip


def new_log(folder: Path, name: str) -> Path:
    """Create an empty file for the output of one service."""
    number, path = tempfile.mkstemp(".log", f"{name.replace(' ', '-')}-", folder)
    os.close(number)
    return Path(path)


def end(process: subprocess.Popen[str]) -> None:
    """Terminate a process, and kill it and its descendants if they remain."""
    family = list(tree(process.pid))
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def tree(root: int) -> Iterator[int]:
    """Yield the ids of a process and its descendants."""
    yield root
    with contextlib.suppress(OSError):
        for thread in (PROC / str(root) / "task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from tree(int(child))


def cpu_seconds(roots: Sequence[int], roles: Mapping[str, str]) -> dict[str, float]:
    """Return the user and system seconds so far of these processes and all their descendants, ended ones too, by role.

    A role is that of the first key of `roles` in the process's name or command line; "other" where there is none.
    """
    seconds: dict[str, float] = {}
    for root in roots:
        for pid in tree(root):
            with contextlib.suppress(OSError):
                command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                name, _, rest = (PROC / str(pid) / "stat").read_text().rpartition(")")
                fields = rest.split()
                role = next((role for text, role in roles.items() if text in f"{name} {command}"), "other")
                seconds[role] = seconds.get(role, 0.0) + sum(map(int, fields[11:15])) / TICKS
    return seconds


def machine_seconds() -> tuple[float, float]:
    """Return the CPU seconds that all programs used so far, steal time included, and those that the machine had."""
    user, nice, system, idle, waiting, *rest = map(int, (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9])
    used = user + nice + system + sum(rest)
    return used / TICKS, (used + idle + waiting) / TICKS
