"""Images decoded in another process have exactly the pixels of those decoded in this one."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import until

from convlens.v1 import spec_pb2
from convlens.worker.images import ImageDecoder, ImageUnreadableError, UnreadableAtError
from convlens.worker.pipeline import decoder_processes as decoding
from convlens.worker.pipeline.decoder_processes import CPU_SECONDS, DecoderProcesses

PHOTO = Image.fromarray(np.random.default_rng(2).integers(0, 256, (90, 70, 3), np.uint8))
FILE = spec_pb2.Image(encoded=b"")


@pytest.fixture(scope="module")
def decoders():
    """Two decoder processes."""
    decoders = DecoderProcesses(2, 10_000)
    yield decoders
    decoders.close()


def encode(kind, picture=PHOTO):
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_same_as_in_this_process(decoders, channels):
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF")
    data = [*map(encode, kinds), encode("PNG", PHOTO.convert("RGBA").rotate(9))]
    images = [FILE] * len(data)
    here = ImageDecoder(10_000).read(images, data, 20, 30, channels=channels)
    there = ImageDecoder(10_000).read(images, data, 20, 30, channels=channels, decode=decoders.read, max_pixels_here=0)
    np.testing.assert_array_equal(there, here)


def test_an_error_has_the_index_of_its_image(decoders):
    data = [encode("PNG"), encode("PNG")[:60]]
    with pytest.raises(UnreadableAtError, match="damaged or truncated") as caught:
        ImageDecoder(10_000).read([FILE] * 2, data, 8, 8, 4, decode=decoders.read, max_pixels_here=0)
    assert caught.value.index == 5


def test_the_limit_of_pixels_applies_there_too(decoders):
    with pytest.raises(ImageUnreadableError, match="40000 pixels, 10000 are allowed"):
        decoders.read(FILE, encode("PNG", PHOTO.resize((200, 200))), np.empty((8, 8, 3), np.uint8))


def test_a_killed_process_is_replaced(decoders):
    into = np.empty((8, 8, 3), np.uint8)
    decoders.read(FILE, encode("PNG"), into)
    for _ in range(2):
        if process := decoders._idle.get():
            process.kill()
        decoders._idle.put(process)
    decoders.read(FILE, encode("PNG"), into)


def run_length_bmp(width, height):
    """Return a BMP of 8 bits in runs of two pixels, as of a dithered picture, and the picture."""
    grey = np.repeat(np.arange(width * height // 2, dtype=np.uint32) * 7 % 256, 2).astype(np.uint8)
    rows = grey.reshape(height, width)
    body = b"".join(b"".join(bytes((2, row[x])) for x in range(0, width, 2)) + b"\0\0" for row in rows[::-1]) + b"\0\1"
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    at = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 2835, 2835, 256, 256)
    return b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at) + header + palette + body, Image.fromarray(rows)


def rechunk(png, size):
    """A PNG whose pixels are in chunks of `size` bytes."""
    chunks, at, pixels = [], 8, b""
    while at < len(png):
        length = int.from_bytes(png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IDAT":
            pixels += body
        else:
            chunks.append((kind, body))
    chunks[-1:-1] = [(b"IDAT", pixels[i : i + size]) for i in range(0, len(pixels), size)]
    return png[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def test_files_of_very_many_parts_are_decoded_in_a_process():
    """A parser written in Python would block the worker for them."""
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (800, 800, 3), np.uint8))
    bmp, dithered = run_length_bmp(640, 480)
    files = [(bmp, dithered), (rechunk(encode("PNG", noise), 64), noise), (encode("PNG"), PHOTO)]
    delegated = []
    with contextlib.closing(DecoderProcesses(1, 1_000_000)) as decoders:

        def decode(image, data, into):
            delegated.append(data)
            decoders.read(image, data, into)

        read = ImageDecoder(1_000_000).read([FILE] * 3, [data for data, _ in files], 40, 40, decode=decode)
    plain = [encode("PNG", picture) for _, picture in files]
    np.testing.assert_array_equal(read, ImageDecoder(1_000_000).read([FILE] * 3, plain, 40, 40))
    assert delegated == [data for data, _ in files[:2]]


@pytest.mark.parametrize(("side", "is_delegated"), [(1400, False), (1500, True)])
def test_images_of_more_than_two_million_pixels_are_decoded_in_a_process(side, is_delegated):
    delegated = []
    data = [encode("PNG"), encode("PNG", Image.new("L", (side, side)))]
    ImageDecoder(9_000_000).read([FILE] * 2, data, 8, 8, decode=lambda _, data, into: delegated.append(data))
    assert delegated == data[1:] * is_delegated


@pytest.fixture
def decoder():
    """A DecoderProcesses of one process that has read an image, and this process."""
    decoders = DecoderProcesses(1, 10_000)
    decoders.read(FILE, encode("PNG"), np.empty((8, 8, 3), np.uint8))
    process = decoders._idle.get()
    decoders._idle.put(process)
    yield decoders, process
    process.kill()
    decoders.close()


@pytest.mark.parametrize(
    ("number", "message"), [(signal.SIGXCPU, f"more than {CPU_SECONDS} s of a processor"), (signal.SIGKILL, "memory")]
)
def test_the_error_says_why_a_process_ended(monkeypatch, decoder, number, message):
    decoders, process = decoder
    start, started = decoding._start, []

    def start_stopped():
        started.append(start())
        started[-1].send_signal(signal.SIGSTOP)
        return started[-1]

    monkeypatch.setattr(decoding, "_start", start_stopped)
    os.kill(process.pid, signal.SIGSTOP)
    refusals = []

    def read():
        try:
            decoders.read(FILE, encode("PNG"), np.empty((8, 8, 3), np.uint8))
        except ImageUnreadableError as error:
            refusals.append(str(error))

    reading = threading.Thread(target=read)
    reading.start()
    until(decoders._idle.empty)
    _end(process, number)
    if number == signal.SIGKILL:  # the second attempt
        until(lambda: started)
        _end(started[0], number)
    reading.join()
    assert message in refusals[0]


def _end(process, number):
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)


def test_each_image_has_a_limit_of_cpu_time_of_its_own(decoder):
    """CPU time, so that a busy machine refuses no image that an idle one reads."""
    decoders, process = decoder
    for _ in range(2):
        soft, _ = resource.prlimit(process.pid, resource.RLIMIT_CPU)
        assert CPU_SECONDS < soft < 2 * CPU_SECONDS
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (CPU_SECONDS // 2, resource.RLIM_INFINITY))
        decoders.read(FILE, encode("PNG"), np.empty((8, 8, 3), np.uint8))


def test_a_process_that_hangs_is_killed(monkeypatch, decoder):
    decoders, process = decoder
    monkeypatch.setattr(decoding, "WALL_SECONDS", 0.3)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(ImageUnreadableError, match=r"more than 0\.3 s; send it again"):
        decoders.read(FILE, encode("PNG"), np.empty((8, 8, 3), np.uint8))
    assert process.poll() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="on other systems it ends after its current image")
def test_a_process_ends_with_its_worker_even_when_it_is_stopped():
    """Also when the thread that started it has ended."""
    code = """if True:
        import threading
        import test_decoders as t
        decoders = t.DecoderProcesses(1, 10_000)
        for _ in range(2):
            first = threading.Thread(
                target=lambda: decoders.read(t.FILE, t.encode("PNG"), t.np.empty((8, 8, 3), t.np.uint8))
            )
            first.start(); first.join()
            print(t.pid_of(decoders), flush=True)
        input()
    """
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    first, second = (int(worker.stdout.readline()) for _ in range(2))
    assert first == second
    os.kill(first, signal.SIGSTOP)
    worker.kill()
    worker.wait()
    until(lambda: _has_ended(first))


def pid_of(decoders):
    """Return the id of the idle process."""
    process = decoders._idle.get()
    decoders._idle.put(process)
    return process.pid


def _has_ended(pid):
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_reply_that_was_not_read_is_not_taken_for_the_next_image(monkeypatch):
    decoders = DecoderProcesses(1, 10_000)
    colors = [np.full((8, 8, 3), value, np.uint8) for value in (200, 10)]
    pixels = np.empty((8, 8, 3), np.uint8)

    def fail(file):
        raise MemoryError

    try:
        with monkeypatch.context() as patch:
            patch.setattr(decoding.pickle, "load", fail)
            with pytest.raises(MemoryError):
                decoders.read(FILE, encode("PNG", Image.fromarray(colors[0])), pixels)
        decoders.read(FILE, encode("PNG", Image.fromarray(colors[1])), pixels)
    finally:
        decoders.close()
    np.testing.assert_array_equal(pixels, colors[1])
