"""Does the worker of this host serve its models? python -m convlens.worker.check: a health check for containers."""

from __future__ import annotations

import platform
import sys

from convlens.jobs import cards
from convlens.jobs.connect import LedgerUnavailable, connect
from convlens.worker.settings import WorkerSettings


def main() -> int:
    """0 when a worker of this host, or of the name in the settings, has a live card; else 1."""
    settings = WorkerSettings.from_command_line("convlens.worker.check", sys.argv[1:])
    name = settings.name or f"{platform.node()}-"
    try:
        found = cards.workers(connect(settings.redis_url))
    except LedgerUnavailable as error:
        print(f"redis cannot be reached: {error}", file=sys.stderr)
        return 1
    mine = [it for it in found if it.startswith(name)]
    print(f"live here: {', '.join(mine) or 'none'}", file=sys.stderr)
    return int(not mine)


if __name__ == "__main__":
    sys.exit(main())
