"""Memory shared with a server on the same machine: images are handed over and results taken there, past gRPC.

A server that can do it says so at the end of each call, so a client's first call goes as to any server. What cannot be
had (another system than Linux, no more files, a server that may not open them) is done without.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from convlens.v1.framing import Data
from convlens.v1.visualization_pb2 import SharedMemory

if sys.platform == "linux":
    import fcntl

OFFER: Final = "convlens-shared-memory"
"""The metadata of a server that can do it."""
CAPACITY: Final = 32 << 20
"""Bytes that a call may have there; larger images and results go through gRPC."""
MOST: Final = 64
"""Files at once, two descriptors each; more calls than that go through gRPC."""
KEPT_BYTES: Final = 128 << 20
"""Of all files that wait for their next call together. Written anew they cost a quarter of new ones."""


class Region:
    """An anonymous file that one call has to itself, mapped: copying takes a quarter of the time of system calls."""

    def __init__(self, process: int) -> None:
        self.process = process
        self.size = 0
        """Bytes of it that were written to, which is what it takes."""
        self._name = uuid.uuid4().hex
        self._file = -1
        self._file = os.memfd_create(f"convlens-{self._name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._file, CAPACITY)
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # the server maps it, too
        self._bytes = mmap.mmap(self._file, CAPACITY)

    def write(self, images: Sequence[Data]) -> SharedMemory:
        """Puts the images there, CAPACITY bytes at most: what tells the server of them."""
        end = 0
        with memoryview(self._bytes) as there:
            for image in images:
                begin, end = end, end + len(image)
                there[begin:end] = image
        self.size = max(self.size, end)
        return SharedMemory(
            process=self.process, descriptor=self._file, name=self._name, sizes=map(len, images), capacity=CAPACITY
        )

    def read(self, into: Sequence[memoryview]) -> int:
        """Fills the buffers, one after another, with what the server wrote; how many bytes there can have been."""
        end = 0
        with memoryview(self._bytes) as there:
            for view in into:
                begin, end = end, end + len(view)
                part = there[begin:end]
                view[: len(part)] = part
        end = min(end, CAPACITY)
        self.size = max(self.size, end)
        return end

    def close(self) -> None:
        """Gives the memory back, once the server is through with it, too."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
            self._bytes.close()

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


class Memory:
    """The regions of one client; calls take turns with them, or do without. Safe across threads and forks."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._slots: deque[Region | None] = deque([None] * MOST)
        """Regions that wait for a call, and places where one may be made, those first."""
        self._offered = False
        self._refused = not hasattr(os, "memfd_create")

    def heard(self, trailing: Mapping[str, Any]) -> None:
        """What the server said at the end of a call."""
        self._offered = trailing.get(OFFER) == "memfd" and not self._refused

    def refused(self) -> None:
        """The server cannot do it after all: it is another user's, or in a container."""
        self._refused, self._offered = True, False

    def region(self, images: Sequence[Data]) -> tuple[Region, SharedMemory] | None:
        """A region with the images, and what tells the server of them; None where they are better sent."""
        if not self._offered or sum(map(len, images)) > CAPACITY:
            return None
        if self._process != os.getpid():  # the fork's other side has what there was
            self._process, self._slots = os.getpid(), deque([None] * MOST)
        try:
            region = self._slots.pop() or Region(self._process)
        except IndexError:
            return None
        except OSError:
            self._slots.appendleft(None)
            return None
        return region, region.write(images)

    def give(self, region: Region) -> None:
        """Takes a region back whose call has ended well: the server is through with it."""
        if self._offered and sum(it.size for it in [*self._slots, region] if it) <= KEPT_BYTES:
            self._slots.append(region)
        else:
            self.drop(region)

    def drop(self, region: Region) -> None:
        """Gives up a region whose call broke: the server may still write to it."""
        region.close()
        self._slots.appendleft(None)

    def close(self) -> None:
        """Gives all back that waits; later calls would have new ones."""
        emptied = 0
        with contextlib.suppress(IndexError):
            while True:
                region = self._slots.pop()
                emptied += 1
                if region:
                    region.close()
        self._slots.extendleft([None] * emptied)
