"""Where Valkey, the payloads and temporary files live: in the data folder where one is given, else in folders that end
with us. A data folder is used by one `convlens up` at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from convlens.jobs.payloads.own_folder import OwnFolder, UnusableFolder
from convlens.jobs.runtime.temporary import locked_folder
from convlens.local.settings import UpSettings
from convlens.local.valkey import CONFIG, FILES, is_file_name, is_own_config

SHM: Final = Path("/dev/shm")  # noqa: S108 - payloads in memory, in a folder of our own
LOCK: Final = "up.lock"
"""Locked by who uses a data folder, whose process id is in it."""
PAYLOADS: Final = "payloads"
LOCK_SECONDS: Final = 5.0
"""How long processes of one that was killed are waited for: they die with it, but not in the same moment."""


@dataclass(frozen=True)
class Folders:
    """The folders of one `convlens up`."""

    data: Path
    """Of Valkey's files."""
    payloads: Path
    temporary: Path
    """Of sockets and of all processes' temporary files; deleted in the end."""
    locks: tuple[int, ...] = ()
    """Descriptors that its processes inherit, so that the data folder is in use until the last of them has ended."""


@contextlib.contextmanager
def folders(settings: UpSettings) -> Iterator[Folders]:
    """The folders, for the length of a `with`. UnusableFolder, also for a data folder that another uses."""
    with contextlib.ExitStack() as held:
        temporary = held.enter_context(locked_folder(Path(tempfile.gettempdir()), "up"))
        if settings.data_dir is not None:
            data = settings.data_dir.expanduser().resolve()
            lock = held.enter_context(_locked(data))
            yield Folders(data, settings.payload_dir or data / PAYLOADS, temporary, (lock,))
            return
        data = temporary / "data"
        data.mkdir(mode=0o700)
        payloads = settings.payload_dir
        if payloads is None and os.access(SHM, os.W_OK):
            memory = held.enter_context(locked_folder(SHM, "up"))
            # containers have 64 MiB of it, which is no place for tensors
            if shutil.disk_usage(SHM).free >= settings.max_queued_bytes + settings.max_stored_bytes:
                payloads = memory
        yield Folders(data, payloads or data / PAYLOADS, temporary)


@contextlib.contextmanager
def _locked(data: Path) -> Iterator[int]:
    """Holds the data folder and closes it, and Valkey's files in it, to others; the lock's descriptor."""
    folder = OwnFolder.open(data)
    with contextlib.ExitStack() as held:
        try:
            _check_own(folder)
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder.fd)
            held.callback(os.close, lock)
            _lock(lock, data)
            os.pwrite(lock, f"{os.getpid():<20}\n".encode(), 0)
            folder.close_to_others()
            for name in (LOCK, *FILES):
                _close_to_others(folder.fd, name)
        except OSError as error:
            raise UnusableFolder(
                f"{data} cannot be used: {error.strerror}; give a folder that this user may write to, on a file system "
                "with locks"
            ) from error
        yield lock


def _check_own(folder: OwnFolder) -> None:
    """Raises UnusableFolder for a folder that is neither empty nor was used by a `convlens up`. It changes nothing.

    Earlier versions left no lock, but nothing else than Valkey's files and payloads.
    """
    with folder.entries() as entries:
        names = sorted(entry.name for entry in entries if entry.name != "lost+found")
    others = [name for name in names if not is_file_name(name) and name not in {LOCK, PAYLOADS}]
    if others and LOCK not in names:
        some = ", ".join(map(repr, others[:3])) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UnusableFolder(
            f"{folder.path} holds other things than a convlens up keeps ({some}); give a --data-dir that is empty or "
            "does not exist yet"
        )
    try:
        is_own = is_own_config(folder.fd)
    except OSError:  # it is a folder or a link
        is_own = False
    if not is_own:
        raise UnusableFolder(
            f"{folder.path / CONFIG} was not written by convlens up, which would replace it; move it away, or give a "
            "--data-dir that is empty or does not exist yet"
        )


def _lock(lock: int, data: Path) -> None:
    """Locks the file. UnusableFolder where another process holds it."""
    patience = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 20, 0).decode().strip()
            if time.monotonic() < patience and not Path(f"/proc/{holder}").exists():
                time.sleep(0.05)  # flock has no timeout
                continue
            raise UnusableFolder(
                f"{data} is in use by another convlens up (process {holder}), and two would lose each other's jobs; "
                "stop that one, or give another --data-dir"
            ) from error
        return


def _close_to_others(folder: int, name: str) -> None:
    """Takes the permissions of others from a file, or a folder and what is in it, where there is one. OSError."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        mode = os.fstat(file).st_mode
        os.fchmod(file, 0o700 if stat.S_ISDIR(mode) else 0o600)
        for inner in os.listdir(file) if stat.S_ISDIR(mode) else ():  # noqa: PTH208 - a descriptor, not a path
            _close_to_others(file, inner)
    finally:
        os.close(file)
