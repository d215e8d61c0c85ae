"""Memory that callers on this machine share: images are read from it and results written to it, past gRPC.

It is an anonymous file of the caller's, which is opened by way of /proc: where that is not allowed, or the caller sees
other processes than we do, nothing is shared. A file is told by its name, which only its caller knows, so that nobody
can have another's read or written, or anything else of ours. It is mapped, and stays so for a while, since callers use
it again; it has to be sealed against shrinking, so that its pages stay there. Linux alone has all that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Final

import grpc

from convlens.jobs.payloads import Data
from convlens.server.errors import Refusal, invalid
from convlens.server.requests import JobRequest
from convlens.v1.visualization_pb2 import SharedMemory

OFFER: Final = ("convlens-shared-memory", "memfd")
"""The metadata that tells callers on this machine that they may share memory."""
MAPPED_SECONDS: Final = 2.0
"""How long memory stays mapped after its last use: its caller may be gone."""
MOST: Final = 256
"""So much of it is mapped at once, a descriptor each."""
_HERE: Final = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:", "unix-abstract:")
_SYSTEM_HAS_IT: Final = sys.platform == "linux"


def offered(peer: str) -> bool:
    """Whether a caller may share memory: one whose gRPC peer is on this machine."""
    return _SYSTEM_HAS_IT and peer.startswith(_HERE)


class Mapped:
    """Callers' memory as this process has it, for any thread."""

    def __init__(self) -> None:
        self._maps: dict[tuple[int, int, str], tuple[mmap.mmap, float]] = {}
        """With when each was used, the longest ago first."""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def images(self, request: JobRequest, most: int) -> Iterator[Iterable[Data]]:
        """The request's images, from its caller's memory where they are there, `most` bytes at most.

        Each is copied when its turn comes: what is made of it then finds it in the processor's cache.
        """
        memory = request.memory
        if memory is None:
            yield request.images
            return
        sizes, count = memory.sizes, len(request.images)
        if len(sizes) != count:
            raise invalid("shared_memory.sizes", f"has {len(sizes)}; allowed: one an image, {count}")
        if any(map(len, request.images)):
            raise invalid("spec.images", "have bytes of their own; allowed with shared_memory: none")
        if min(sizes, default=0) < 0 or (total := sum(sizes)) > most:
            raise invalid("shared_memory.sizes", f"is {list(sizes)}; allowed: none below 0, {most} bytes in all")
        try:
            there = self._map(memory)
        except OSError as error:
            raise unreadable(memory, error.strerror) from error
        with contextlib.closing(_copies(there, sizes)) as images:
            has = len(there)
            del there  # an error's traceback would keep it mapped
            if total > has:
                raise invalid("shared_memory.sizes", f"is {total} bytes in all; the file has {has}")
            yield images

    def moved(self, memory: SharedMemory, fill: Callable[[Sequence[memoryview]], None], total: int) -> bool:
        """Has `total` bytes filled of the caller's memory; False where it has no room for them, or is not to be had."""
        try:
            there = memoryview(self._map(memory))
        except (OSError, Refusal):
            return False
        with there:
            if total > min(memory.capacity, len(there)):
                return False
            with there[:total] as part:
                fill([part])
        return True

    def sweep(self) -> None:
        """Gives back what was not used for a while."""
        before = time.monotonic() - MAPPED_SECONDS
        with self._lock:
            for key in [key for key, (_, used) in self._maps.items() if used < before]:
                del self._maps[key]

    def _map(self, memory: SharedMemory) -> mmap.mmap:
        """The caller's memory. OSError where it cannot be opened, a Refusal where it is not what is named."""
        key = memory.process, memory.descriptor, memory.name
        with self._lock:
            there, _ = self._maps.pop(key, (None, 0.0))
        if there is None:
            with _opened(memory) as file:
                if not (size := os.fstat(file).st_size):
                    raise unreadable(memory, "it is empty")
                there = mmap.mmap(file, size)
        with self._lock:
            self._maps[key] = there, time.monotonic()
            if len(self._maps) > MOST:
                del self._maps[next(iter(self._maps))]
        return there


def _copies(there: mmap.mmap, sizes: Sequence[int]) -> Generator[bytes]:
    """The images that lie there; their caller cannot change them any more."""
    end = 0
    for size in sizes:
        begin, end = end, end + size
        yield there[begin:end]


@contextlib.contextmanager
def _opened(memory: SharedMemory) -> Iterator[int]:
    if not re.fullmatch("[0-9a-f]{32}", memory.name):
        raise invalid("shared_memory.name", f"is {memory.name[:80]!r}; allowed: 32 lower-case hex digits")
    path = f"/proc/{memory.process}/fd/{memory.descriptor}"
    _check(memory, path)
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _check(memory, f"/proc/self/fd/{file}")  # it may have become another one meanwhile
        if not fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise unreadable(memory, "it is not sealed against shrinking")
        if os.fstatvfs(file).f_bsize != mmap.PAGESIZE:
            raise unreadable(memory, "its pages are huge ones, of which there may be none left")
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
