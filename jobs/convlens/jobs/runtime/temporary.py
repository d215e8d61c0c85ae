"""Folders for temporary files. One that a killed process left is deleted by the next process that starts.

A process locks its folder, and the kernel unlocks it however the process ends. So an unlocked folder is a leftover.
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
"""Only folders of such names are deleted; other names that begin with convlens- are other people's."""


@contextlib.contextmanager
def locked_folder(parent: Path, kind: str) -> Iterator[Path]:
    """Make a folder in `parent` for the length of a `with`, with `kind` in its name; leftovers are deleted first."""
    for old in parent.iterdir():
        if _NAME.fullmatch(old.name):
            with contextlib.suppress(OSError), _locked(old):  # another user's, or locked
                shutil.rmtree(old, ignore_errors=True)
    with contextlib.ExitStack() as locks:
        while True:
            folder = parent / f"convlens-{kind}-{secrets.token_hex(6)}"
            folder.mkdir(mode=0o700)
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # deleted as a leftover before it was locked
                locks.enter_context(_locked(folder))
                folder.stat()
                break
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def temporary_files(kind: str) -> Iterator[None]:
    """Keep all temporary files of this process and its libraries in a locked folder for the length of a `with`."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with locked_folder(Path(tempfile.gettempdir()), kind) as folder:
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
    """Lock a folder for the length of a `with`. Raises OSError where it is another user's, or locked."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(file).st_uid != os.geteuid():
            raise PermissionError(f"{folder} is another user's")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)
