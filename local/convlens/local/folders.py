"""The folders of `convlens up` for Valkey, payloads and temporary files.

They are in the data folder where one is given, and otherwise temporary. A data folder is used by one `convlens up` at
a time.
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
from convlens.local.valkey import CONFIG, FILES, is_own_config

SHM: Final = Path("/dev/shm")  # noqa: S108 - payloads in memory, in a private folder
LOCK: Final = "up.lock"
"""File that the user of a data folder locks; it contains that process' id."""
PAYLOADS: Final = "payloads"
LOCK_SECONDS: Final = 5.0
"""Time to wait for children of a killed `convlens up`, which die shortly after it."""


@dataclass(frozen=True)
class Folders:
    """The folders of one `convlens up`."""

    data: Path
    """Valkey's files."""
    payloads: Path
    temporary: Path
    """Sockets, and temporary files of all processes; deleted at the end."""
    locks: tuple[int, ...] = ()
    """Descriptors that the children inherit, so that the data folder stays locked until the last of them has ended."""


@contextlib.contextmanager
def open_folders(settings: UpSettings) -> Iterator[Folders]:
    """Open the folders for the duration of a `with`. Raises UnusableFolder, also for a data folder in use."""
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(locked_folder(Path(tempfile.gettempdir()), "up"))
        if settings.data_dir is not None:
            data = settings.data_dir.expanduser().resolve()
            lock = stack.enter_context(_locked(data))
            yield Folders(data, settings.payload_dir or data / PAYLOADS, temporary, (lock,))
            return
        data = temporary / "data"
        data.mkdir(mode=0o700)
        payloads = settings.payload_dir
        if payloads is None and os.access(SHM, os.W_OK):
            memory = stack.enter_context(locked_folder(SHM, "up"))
            # containers often have 64 MiB, too little for tensors
            if shutil.disk_usage(SHM).free >= settings.max_queued_bytes + settings.max_stored_bytes:
                payloads = memory
        yield Folders(data, payloads or data / PAYLOADS, temporary)


@contextlib.contextmanager
def _locked(data: Path) -> Iterator[int]:
    """Lock the data folder, close it and Valkey's files to others, and yield the lock's descriptor."""
    folder = OwnFolder.open(data)
    with contextlib.ExitStack() as stack:
        try:
            _check_own(folder)
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder.fd)
            stack.callback(os.close, lock)
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
    """Raise UnusableFolder for a folder that is not empty and was not used by `convlens up`; change nothing."""
    with folder.entries() as entries:
        names = sorted(entry.name for entry in entries if entry.name != "lost+found")
    if names and LOCK not in names:
        some = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise UnusableFolder(
            f"{folder.path} holds files that are not of convlens up ({some}); give a --data-dir that is empty or "
            "does not exist yet"
        )
    try:
        is_own = is_own_config(folder.fd)
    except OSError:  # a folder or a link
        is_own = False
    if not is_own:
        raise UnusableFolder(
            f"{folder.path / CONFIG} was not written by convlens up, which would overwrite it; move it away, or give a "
            "--data-dir that is empty or does not exist yet"
        )


def _lock(lock: int, data: Path) -> None:
    """Lock the file. Raises UnusableFolder where another process holds the lock."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 20, 0).decode().strip()
            if time.monotonic() < deadline and not Path(f"/proc/{holder}").exists():
                time.sleep(0.05)  # flock has no timeout
                continue
            raise UnusableFolder(
                f"{data} is in use by another convlens up (process {holder}), and two would lose each other's jobs; "
                "stop that one, or give another --data-dir"
            ) from error
        return


def _close_to_others(folder: int, name: str) -> None:
    """Remove other users' permissions from a file or a folder and its content, if it exists. Raises OSError."""
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
