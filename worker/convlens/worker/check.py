"""Check that this host's worker is registered: python -m convlens.worker.check, a health check for containers."""

from __future__ import annotations

import platform
import re
import sys

from convlens.jobs import model_registry
from convlens.jobs.runtime.command_line import read_settings
from convlens.jobs.runtime.redis_client import RedisUnavailable, connect
from convlens.worker.settings import WorkerSettings


def main() -> int:
    """Return 0 when the worker with the name in the settings, or by default any worker of this host, is registered."""
    settings = read_settings(WorkerSettings, "convlens.worker.check", sys.argv[1:])
    try:
        workers = model_registry.read_live_workers(connect(settings.redis_url))
    except RedisUnavailable as error:
        print(f"redis cannot be reached: {error}", file=sys.stderr)
        return 1
    matching = sorted(worker for worker in workers if _matches(worker, settings.name))
    print(f"live here: {', '.join(matching) or 'none'}", file=sys.stderr)
    return int(not matching)


def _matches(worker: str, name: str) -> bool:
    """Return True for a worker of this `name`, or with the default name HOST-PID of this host where it is empty."""
    return worker == name if name else re.fullmatch(rf"{re.escape(platform.node())}-\d+", worker) is not None


if __name__ == "__main__":
    sys.exit(main())
