"""Does the worker of this host serve its models? python -m convlens.worker.check: a health check for containers."""

from __future__ import annotations

import platform
import re
import sys

from convlens.jobs import model_registry
from convlens.jobs.runtime.redis_client import LedgerUnavailable, connect
from convlens.worker.settings import WorkerSettings


def main() -> int:
    """0 when the worker of the name in the settings, or without one any unnamed worker of this host, is announced."""
    settings = WorkerSettings.from_command_line("convlens.worker.check", sys.argv[1:])
    try:
        found = model_registry.read_live_workers(connect(settings.redis_url))
    except LedgerUnavailable as error:
        print(f"redis cannot be reached: {error}", file=sys.stderr)
        return 1
    mine = sorted(it for it in found if _is_meant(it, settings.name))
    print(f"live here: {', '.join(mine) or 'none'}", file=sys.stderr)
    return int(not mine)


def _is_meant(worker: str, name: str) -> bool:
    """Whether a live worker is the one checked: of just this name, or HOST-PID of this host where none was given."""
    return worker == name if name else re.fullmatch(rf"{re.escape(platform.node())}-\d+", worker) is not None


if __name__ == "__main__":
    sys.exit(main())
