"""`python -m convlens.server`, and the `server` subcommand of `convlens`."""

from __future__ import annotations

import sys

from convlens.jobs.runtime import descriptors, logs, memory, scheduling
from convlens.server.app import serve
from convlens.server.settings import ServerSettings
from convlens.v1.image_formats import ignore_warnings

try:
    from uvloop import run
except ModuleNotFoundError:  # where there is no uvloop: Windows, PyPy
    from asyncio import run


def main(argv: list[str] | None = None) -> int:
    """Run a server until it is stopped."""
    settings = ServerSettings.from_command_line("convlens server", sys.argv[1:] if argv is None else argv)
    logs.configure(settings.log_level)
    ignore_warnings()
    descriptors.raise_limit()
    memory.keep_freed_blocks(arenas=1)
    scheduling.use_batch_policy()
    status: int = run(serve(settings))
    return status


if __name__ == "__main__":
    sys.exit(main())
