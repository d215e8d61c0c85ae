"""Where Valkey and the payloads live: in the data folder where one is given, else in folders that end with us.

A process that was killed could not delete its own; the next one does, as a lock that the system takes back tells.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from convlens.local.settings import UpSettings

SHM: Final = Path("/dev/shm")  # noqa: S108 - payloads in memory, in a folder of our own
PREFIX: Final = "convlens-up-"
"""Of our own folders alone: what others have called convlens-something is theirs, payload folders among it."""


@contextlib.contextmanager
def folders(settings: UpSettings) -> Iterator[tuple[Path, Path]]:
    """The folder of Valkey's data, and that of the payloads: in memory, unless they are to be kept."""
    if settings.data_dir is not None:
        data = settings.data_dir.expanduser().resolve()
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield data, settings.payload_dir or data / "payloads"
        return
    with contextlib.ExitStack() as held:
        data = held.enter_context(_held(Path(tempfile.gettempdir())))
        payloads = settings.payload_dir
        if payloads is None and os.access(SHM, os.W_OK):
            memory = held.enter_context(_held(SHM))
            # containers have 64 MiB of it, which is no place for tensors
            if shutil.disk_usage(SHM).free >= settings.max_queued_bytes + settings.max_stored_bytes:
                payloads = memory
        yield data, payloads or data / "payloads"


@contextlib.contextmanager
def _held(parent: Path) -> Iterator[Path]:
    """A new folder, locked while it lasts; those made here before that nobody holds any more are deleted first."""
    for old in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _locked(old):  # another user's, or held
            shutil.rmtree(old, ignore_errors=True)
    name = f"{PREFIX}{secrets.token_hex(6)}"
    hidden = parent / f".{name}"  # nobody deletes it before it is locked
    hidden.mkdir(mode=0o700)
    with _locked(hidden):
        folder = hidden.rename(parent / name)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a folder of this user's. OSError where it is another's, or held."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(file).st_uid != os.getuid():
            raise PermissionError(f"{folder} is another user's")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)
