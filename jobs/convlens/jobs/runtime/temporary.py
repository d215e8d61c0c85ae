"""Folders for temporary files that are deleted also when the process that made them is killed: by the next that starts.

A process holds a lock on its folder, which the system takes back however the process ends. So a folder of this kind
that nobody holds is a leftover.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"convlens-[a-z]+-[0-9a-f]{12}")
"""Of these folders alone: what others have called convlens-something is theirs, payload folders among it."""


@contextlib.contextmanager
def held_folder(parent: Path, kind: str) -> Iterator[Path]:
    """A new folder in `parent` for the length of a `with`, `kind` in its name; leftovers there are deleted first."""
    for old in parent.iterdir():
        if _NAME.fullmatch(old.name):
            with contextlib.suppress(OSError), _locked(old):  # another user's, or held
                shutil.rmtree(old, ignore_errors=True)
    with contextlib.ExitStack() as held:
        while True:
            folder = parent / f"convlens-{kind}-{secrets.token_hex(6)}"
            folder.mkdir(mode=0o700)
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # taken for a leftover before it was locked
                held.enter_context(_locked(folder))
                folder.stat()
                break
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def temporary_files(kind: str) -> Iterator[None]:
    """Has all temporary files of this process and its libraries in a held folder for the length of a `with`."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with held_folder(Path(tempfile.gettempdir()), kind) as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = os.fspath(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before
            if variable is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = variable


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a folder of this user's. OSError where it is another's, or held."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(file).st_uid != os.geteuid():
            raise PermissionError(f"{folder} is another user's")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)
