"""`python -m convlens.server`, and the `server` subcommand of `convlens`."""

from __future__ import annotations

import sys
from typing import Final

from convlens.jobs.runtime import logs, process
from convlens.jobs.runtime.command_line import SettingsCommand
from convlens.server.settings import ServerSettings

SUMMARY: Final = """Run a server: it takes calls by gRPC, queues jobs in Redis, and sends results.

Prints `ready: grpc HOST:PORT` once calls are accepted. SIGTERM drains it.

Examples:

  convlens server --redis-url redis://queue:6379/0

  convlens server --tokens tokens.toml --tls-cert a.pem --tls-key a.key
"""


def run(settings: ServerSettings) -> int:
    """Run a server until it is stopped; return the exit status."""
    try:
        from uvloop import run as run_loop
    except ModuleNotFoundError:  # where there is no uvloop: Windows, PyPy
        from asyncio import run as run_loop

    from convlens.server.app import serve
    from convlens.v1.image_formats import ignore_warnings

    logs.configure(settings.log_level)
    ignore_warnings()
    process.prepare(arenas=1)
    status: int = run_loop(serve(settings))
    return status


main: Final = SettingsCommand("convlens server", ServerSettings, run, SUMMARY)

if __name__ == "__main__":
    sys.exit(main())
