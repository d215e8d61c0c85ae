"""Processes that decode images that take long, one image each at a time, beside a worker.

Such an image takes a second and a gigabyte, in libraries of which some let no other thread of their process run. In a
process of its own it holds nobody up, what it took is given back, and where the machine has no more memory, this is the
process that is ended: the image is refused, and the worker goes on.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import queue
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from convlens.v1 import spec_pb2
from convlens.v1.image_formats import ignore_warnings
from convlens.worker.images import Data, ImageUnreadableError, Pixels, read_image

log = logging.getLogger(__name__)

CPU_SECONDS: Final = 60
"""For one image; CPU time, so that a busy machine refuses no image."""
WALL_SECONDS: Final = 600.0
"""For one image, by the clock: a decoder that does nothing ends, too."""
NICE: Final = 10
"""Niceness that is added to that of the worker."""
_PR_SET_PDEATHSIG: Final = 1


class DecoderProcesses:
    """Up to `most` processes, started when they are first needed."""

    def __init__(self, most: int, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        self._most = most
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoders")
        # A process ends with the thread that started it, and this thread lasts as long as the worker.
        for _ in range(most):
            self._idle.put(None)

    def read(self, image: spec_pb2.Image, data: Data, into: Pixels) -> None:
        """As images.read_image(), in the next process that is idle. ImageUnreadableError.

        An image with which a process is killed is tried once more: that may have been another's fault.
        """
        request = (image.SerializeToString(), bytes(data), into.shape, into.dtype.str, self._max_pixels)
        reply = self._answer(request)
        if reply is None:
            raise ImageUnreadableError("the decoder was killed twice, as happens where memory is short; shrink it")
        if isinstance(reply, str):
            raise ImageUnreadableError(reply)
        into[:] = np.frombuffer(reply, into.dtype).reshape(into.shape)

    def _answer(self, request: Any) -> bytes | str | None:
        process = self._idle.get()
        reply = None
        try:
            for _ in range(2):
                if process is None or process.poll() is not None:
                    process = self._starter.submit(_start).result()
                reply = _answer(process, request)
                if reply:
                    break
                log.warning("decoder=%d ended with status %s", process.pid, process.returncode)
        except BaseException:
            if process is not None:
                process.kill()  # its reply may be unread, and would be taken for the next image's
                process.wait()
            raise
        finally:
            self._idle.put(process)
        return reply

    def close(self) -> None:
        """Ends the processes, once each has ended what it does."""
        for _ in range(self._most):
            if process := self._idle.get():
                process.communicate()
        self._starter.shutdown()


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", __name__]
    return subprocess.Popen(  # noqa: S603 - this very module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )


def _answer(process: subprocess.Popen[bytes], request: Any) -> bytes | str | None:
    """The pixels or why there are none; None where the process was killed meanwhile, as by a lack of memory."""
    requests, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    is_late = threading.Event()

    def stop() -> None:
        is_late.set()
        process.kill()

    limit = threading.Timer(WALL_SECONDS, stop)
    limit.start()
    try:
        pickle.dump(request, requests)
        requests.flush()
        reply: bytes | str = pickle.load(answers)  # noqa: S301 - of this very module
    except (OSError, EOFError, pickle.UnpicklingError):
        process.kill()
        if process.wait() == -signal.SIGXCPU:
            return f"decoding the image took more than {CPU_SECONDS} s of a processor's time; shrink it"
        return f"decoding the image took more than {WALL_SECONDS:g} s; send it again" if is_late.is_set() else None
    finally:
        limit.cancel()
    return reply


def _end_with_worker() -> None:
    """Has Linux kill this process with the one that started it; elsewhere the next request does not come."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_cpu() -> None:
    """Has the system end this process with SIGXCPU when it has computed CPU_SECONDS more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # which that signal would write
    soft = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft if most == resource.RLIM_INFINITY else min(soft, most), most))


def main() -> None:
    """Decodes what comes in, until the worker is gone."""
    _end_with_worker()
    ignore_warnings()
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
        _limit_cpu()
        try:
            read_image(spec_pb2.Image.FromString(about), data, pixels, max_pixels)
        except ImageUnreadableError as error:
            pickle.dump(str(error), answers)
        else:
            pickle.dump(pixels.tobytes(), answers)
        answers.flush()


if __name__ == "__main__":
    main()
