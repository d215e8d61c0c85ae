"""Processes that decode large images, one image each at a time, beside a worker.

Such an image takes a second and a gigabyte, in libraries of which some let no other thread of their process run. In a
process of its own it holds nobody up, what it took is given back, and where the machine has no more memory, this is the
process that is ended: the image is refused, and the worker goes on.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from convlens.v1 import spec_pb2
from convlens.worker.images import Data, ImageUnreadableError, Pixels, read_image

SECONDS: Final = 60.0
"""For one image."""
NICE: Final = 10
"""What is below the priority of the worker itself."""


class Decoders:
    """Up to `most` processes, started when they are first needed."""

    def __init__(self, most: int, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        self._most = most
        for _ in range(most):
            self._idle.put(None)

    def read(self, image: spec_pb2.Image, data: Data, into: Pixels) -> None:
        """As images.read_image(), in the next process that is idle. ImageUnreadableError.

        An image with which a process ends is tried once more: that may have been another's fault.
        """
        request = (image.SerializeToString(), bytes(data), into.shape, into.dtype.str, self._max_pixels)
        found = self._answer(request) or self._answer(request)
        if found is None:
            raise ImageUnreadableError(f"decoding the image took more memory than there is, or more than {SECONDS:g} s")
        if isinstance(found, str):
            raise ImageUnreadableError(found)
        into[:] = np.frombuffer(found, into.dtype).reshape(into.shape)

    def _answer(self, request: Any) -> bytes | str | None:
        process = self._idle.get()
        try:
            if process is None or process.poll() is not None:
                process = subprocess.Popen(  # noqa: S603 - this very module
                    [sys.executable, "-m", __name__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
            return _answer(process, request)
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """Ends the processes, once each has ended what it does."""
        for _ in range(self._most):
            if process := self._idle.get():
                process.communicate()


def _answer(process: subprocess.Popen[bytes], request: Any) -> bytes | str | None:
    """The pixels or why there are none; None where the process ended meanwhile."""
    requests, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    limit = threading.Timer(SECONDS, process.kill)
    limit.start()
    try:
        pickle.dump(request, requests)
        requests.flush()
        found: bytes | str = pickle.load(answers)  # noqa: S301 - of this very module
    except (OSError, EOFError, pickle.UnpicklingError):
        process.kill()
        process.wait()
        return None
    finally:
        limit.cancel()
    return found


def main() -> None:
    """Decodes what comes in, until the worker is gone."""
    os.nice(NICE)
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            about, data, shape, dtype, max_pixels = pickle.load(requests)  # noqa: S301 - of the worker that started this
        except EOFError:
            return
        pixels = np.empty(shape, dtype)
        try:
            read_image(spec_pb2.Image.FromString(about), data, pixels, max_pixels)
        except ImageUnreadableError as error:
            pickle.dump(str(error), answers)
        else:
            pickle.dump(pixels.tobytes(), answers)
        answers.flush()


if __name__ == "__main__":
    main()
