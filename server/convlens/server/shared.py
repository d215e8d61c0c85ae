"""Memory that callers on this machine share: images are read from it and results written to it, past gRPC.

It is an anonymous file of the caller's, which is opened by way of /proc: where that is not allowed, or the caller sees
other processes than we do, nothing is shared. A file is told by its name, which only its caller knows, so that nobody
can have another's read or written, or anything else of ours. Linux alone has all that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Final

import grpc

from convlens.jobs.payloads import Data
from convlens.server.errors import Refusal, invalid
from convlens.server.requests import JobRequest
from convlens.v1.visualization_pb2 import SharedMemory

OFFER: Final = ("convlens-shared-memory", "memfd")
"""The metadata that tells callers on this machine that they may share memory."""
PIECE: Final = 1 << 18
"""Bytes of a result that are moved at once: they stay in the processor's cache."""
_HERE: Final = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:", "unix-abstract:")
_SYSTEM_HAS_IT: Final = sys.platform == "linux"


def offered(peer: str) -> bool:
    """Whether a caller may share memory: one whose gRPC peer is on this machine."""
    return _SYSTEM_HAS_IT and peer.startswith(_HERE)


def taken(request: JobRequest, most: int) -> JobRequest:
    """The request with its images, read from its caller's memory where they are there, `most` bytes at most."""
    memory = request.memory
    if memory is None:
        return request
    sizes, count = memory.sizes, len(request.images)
    if len(sizes) != count:
        raise invalid("shared_memory.sizes", f"has {len(sizes)}; allowed: one an image, {count}")
    if any(map(len, request.images)):
        raise invalid("spec.images", "have bytes of their own; allowed with shared_memory: none")
    if min(sizes, default=0) < 0 or (total := sum(sizes)) > most:
        raise invalid("shared_memory.sizes", f"is {list(sizes)}; allowed: none below 0, {most} bytes in all")
    try:
        with _opened(memory) as file:
            whole = memoryview(os.pread(file, total, 0))
    except OSError as error:
        raise unreadable(memory, error.strerror) from error
    if len(whole) != total:
        raise invalid("shared_memory.sizes", f"is {total} bytes in all; the file has {len(whole)}")
    images = []
    for size in sizes:
        images.append(whole[:size])
        whole = whole[size:]
    return JobRequest(request.message, images)


def moved(memory: SharedMemory, read: Callable[[int, int], Data], total: int, behind: int) -> bytes | None:
    """Writes the first `total` bytes that `read` gives to the caller's memory, and returns the `behind` that follow.

    None where they cannot be written there.
    """
    if total > memory.capacity:
        return None
    rest = b""
    try:
        with _opened(memory) as file:
            for offset in range(0, total + behind, PIECE):
                data = memoryview(read(offset, min(PIECE, total + behind - offset)))
                inside = data[: max(0, total - offset)]
                if os.pwrite(file, inside, offset) != len(inside):
                    return None
                rest += data[len(inside) :]
    except (OSError, Refusal):
        return None
    return rest


@contextlib.contextmanager
def _opened(memory: SharedMemory) -> Iterator[int]:
    """The caller's file. OSError where it cannot be opened, a Refusal where it is not the one that is named."""
    if not re.fullmatch("[0-9a-f]{32}", memory.name):
        raise invalid("shared_memory.name", f"is {memory.name[:80]!r}; allowed: 32 lower-case hex digits")
    path = f"/proc/{memory.process}/fd/{memory.descriptor}"
    _check(memory, path)
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _check(memory, f"/proc/self/fd/{file}")  # it may have become another one meanwhile
        yield file
    finally:
        os.close(file)


def _check(memory: SharedMemory, path: str) -> None:
    if os.readlink(path) != f"/memfd:convlens-{memory.name} (deleted)":
        raise unreadable(memory, os.strerror(errno.ESTALE))


def unreadable(memory: SharedMemory, why: str | None) -> Refusal:
    """What tells a caller to do without."""
    return Refusal(
        grpc.StatusCode.FAILED_PRECONDITION,
        "SHARED_MEMORY_UNREADABLE",
        f"shared_memory: descriptor {memory.descriptor} of process {memory.process} is not to be had: {why}; "
        "send the images themselves",
        field="shared_memory",
    )
