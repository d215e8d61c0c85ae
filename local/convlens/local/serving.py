"""Run Convlens inside a `with` block: for tests of programs that call it, for examples and the demo."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def serving(*flags: str, models: Sequence[str] = ("shapes=shapes",), log: Path | None = None) -> Iterator[str]:
    """Run `convlens up` on a free port, yield its target "127.0.0.1:PORT", and stop it afterwards.

    `models` are given as NAME=SOURCE, `flags` are any other flags of `convlens up`. Warnings and errors go to stderr,
    or all that the processes log to the file `log`. Raises RuntimeError when it does not start; the log says why.

        with serving() as target, Client(target) as client:
            client.grad_cam("photo.jpg")
    """
    model_flags = [argument for model in models for argument in ("--model", model)]
    log_flags = ["--log", "-"] if log else []
    command = [sys.executable, "-m", "convlens.local.up", "--port", "0", *model_flags, *log_flags, *flags]
    with contextlib.ExitStack() as stack:
        stderr: IO[str] | None = stack.enter_context(log.open("w", encoding="utf-8")) if log else None
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)  # noqa: S603 - our own module
        )
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("ready: grpc "):
                raise RuntimeError(
                    f"convlens up ended with status {process.wait()} before it served; see {log or 'stderr'}"
                )
            yield line.split()[-1]
        finally:
            process.terminate()
