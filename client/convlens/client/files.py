"""Image files read from paths, open files, uploads and package resources; errors say what was given instead."""

from __future__ import annotations

import errno
import inspect
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from convlens.client.errors import InvalidArgument
from convlens.v1.file_signatures import is_base64_image

LONGEST_NAME: Final = 1024
"""Characters; a longer text is more likely an encoded image than a path."""
LONGEST_STREAM: Final = 256 << 20
"""Bytes that are read from a pipe, which may have no end."""
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
"""One slash: a Path has made one of two. A drive of Windows has one letter."""


class Readable(Protocol):
    """An open file or an upload."""

    def read(self) -> bytes:
        """Return the content from the current position."""


def read_path(path: str | os.PathLike[str]) -> bytes:
    """Read a file.

    InvalidArgument for a text that is no path: nothing, a URL, a data URL, an image in base64. OSError for a file that
    cannot be read.
    """
    if not os.fspath(path):
        raise InvalidArgument("an empty path is no image; give the path of a file", field="images")
    try:
        return _content_at(Path(path))
    except InvalidArgument:  # a ValueError, too
        raise
    except (OSError, ValueError) as error:
        if why := _not_a_path_reason(os.fspath(path)):
            raise InvalidArgument(why, field="images") from error
        if isinstance(error, OSError) and Path(path).is_dir():
            message = "this is a folder; give the files in it, such as sorted(Path(folder).glob('*.jpg'))"
            raise IsADirectoryError(errno.EISDIR, message, str(path)) from error
        raise


def _content_at(path: Path) -> bytes:
    """Read a file or a pipe. InvalidArgument for a device, and for a pipe that does not end."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            raise InvalidArgument(f"{path}: this is a device; give a file", field="images")
        longest = max(status.st_size, LONGEST_STREAM)
        content = file.read(longest + 1)
    if len(content) > longest:
        raise InvalidArgument(f"{path}: it does not end within {longest >> 20} MiB; give a file", field="images")
    return content


def _not_a_path_reason(text: str) -> str | None:
    """Return what a text is instead of a path, and the remedy; None if it may be a path."""
    start = f"{text[:40]!r}{'…' * (len(text) > 40)}"
    if text[:5].lower() == "data:":
        return f"{start} is a data URL, no path; give its bytes: base64.b64decode(url.partition(',')[2])"
    if scheme := _URL.match(text):
        remedy = {
            "file": "give the path behind file://",
            "http": "download it, or give urllib.request.urlopen(url)",
            "https": "download it, or give urllib.request.urlopen(url)",
        }.get(scheme[1].lower(), "give the file opened with a library that knows it")
        return f"{start} is a URL, no path; {remedy}"
    if is_base64_image(text):
        return f"{start} is an image in base64, no path; give its bytes: base64.b64decode(text)"
    if len(text) > LONGEST_NAME or re.search(r"[\x00\n]", text):
        return f"a text of {len(text)} characters, {start}, is no path; give a file's content as bytes"
    return None


def read_file(file: Readable) -> bytes:
    """Read an open file from its current position. InvalidArgument if that fails or gives no bytes."""
    start = _position(file)
    content = _content_of(file, file.read)
    if inspect.isawaitable(content):
        if inspect.iscoroutine(content):
            content.close()
        raise _refused(file, "its read() is asynchronous", "give what it reads: await file.read()")
    if isinstance(content, str):
        raise _refused(file, "it was opened as text", "open it with mode 'rb'")
    if not isinstance(content, bytes | bytearray | memoryview):
        raise _refused(file, f"its read() gives {type(content).__name__}", "give bytes")
    if not content:
        was_read = "nothing is left to read, it was read before" if start else "it is empty"
        raise _refused(file, was_read, "rewind it: file.seek(0)" if start else "give a file with an image in it")
    return bytes(content)


def read_resource(resource: Any) -> bytes:
    """Read an object with read_bytes(), such as a package resource or an archive member. Errors as of read_file()."""
    content = _content_of(resource, resource.read_bytes)
    if not isinstance(content, bytes | bytearray | memoryview):
        raise _refused(resource, f"its read_bytes() gives {type(content).__name__}", "give bytes")
    return bytes(content)


def _content_of(file: object, read: Callable[[], Any]) -> Any:
    """Call `read`. Errors other than OSError become InvalidArgument: a closed file, a damaged archive."""
    try:
        return read()
    except OSError:
        raise
    except Exception as error:  # whatever libraries of archives and downloads raise
        why = f"it cannot be read ({type(error).__name__}: {error})"
        raise _refused(file, why, "give a file that is open and whole, or its content as bytes") from error


def _position(file: Any) -> int:
    """Return the position of an open file; 0 if it has none."""
    try:
        return int(file.tell())
    except (AttributeError, OSError, TypeError, ValueError):
        return 0


def _refused(file: object, why: str, remedy: str) -> InvalidArgument:
    name = getattr(file, "name", None)
    if name is None:
        name = getattr(file, "filename", None)
    return InvalidArgument(f"the file {name or type(file).__name__} is no image: {why}; {remedy}", field="images")
