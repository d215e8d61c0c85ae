"""Images that are small as files and large as pictures are decoded beside everybody else's."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import until
from resource_usage import MIB, PHOTO, BackgroundCaller, peak, reset_peak, resident

from convlens.client import Activations, Client, InvalidArgument, Output, Saliency
from convlens.v1 import job_pb2

SIDE = 8000


@pytest.fixture(scope="module")
def service(start_service):
    service = start_service()
    service.null = service.worker("null=null", "stuck=null,device_ms=10000+0")
    service.front, service.target = service.server()
    return service


def picture(kind="WEBP", side=SIDE, colour=255, **options) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (colour, 255, 255)).save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def huge():
    """A WebP of 2.5 kB that is 64 million pixels."""
    return picture(lossless=True)


def decoders(worker) -> list[int]:
    """The processes that a worker has for large images."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == worker.pid:
            found.append(int(path.parent.name))
    return found


def test_large_images_hold_nobody_up(service, huge, scale):
    """64 of them in 64 small jobs; the decoders' memory is bounded, and the worker's does not grow."""
    worker = service.null
    jobs = []
    with Client(service.target, timeout=60) as client, BackgroundCaller(service.target) as neighbour:
        reset_peak(worker)
        before = resident(worker)
        jobs = [client.submit(huge + bytes([n, 0]), [Saliency()], model="null", timeout=600) for n in range(64)]
        time_with_them = threading.Event()
        time_with_them.wait(4 * scale)
        held = sum(_resident(pid) for pid in decoders(worker))
        grown = peak(worker) - before
        for job in jobs:
            job.cancel()
    assert not neighbour.errors
    assert len(neighbour.seconds) > 10 * scale
    assert neighbour.slowest < 2, f"{neighbour.slowest:.2f} s"  # 1 s on a machine that nothing else keeps busy
    assert grown < 100 * MIB, f"{grown / MIB:.0f} MiB"
    assert held < 2 * 1300 * MIB, f"{held / MIB:.0f} MiB"


def translucent(side=3990) -> bytes:
    """A PNG of 60 kB that is just below 16 million pixels."""
    out = io.BytesIO()
    Image.new("RGBA", (side, side), (1, 2, 3, 100)).save(out, "PNG")
    return out.getvalue()


def commonplace(side=3990) -> bytes:
    """A JPEG of as many, lying on its side."""
    exif = Image.Exif()
    exif[0x112] = 6
    return picture("JPEG", side, exif=exif)


@pytest.mark.parametrize("make", [translucent, commonplace])
def test_images_of_some_million_pixels_hold_nobody_up(service, scale, make):
    data, worker = make(), service.null
    with Client(service.target, timeout=60) as client, BackgroundCaller(service.target) as neighbour:
        reset_peak(worker)
        before = resident(worker)
        jobs = [client.submit(data + bytes([n, 0]), [Saliency()], model="null", timeout=600) for n in range(48)]
        threading.Event().wait(2.5 * scale)
        grown = peak(worker) - before
        for job in jobs:
            job.cancel()
    assert not neighbour.errors
    assert neighbour.slowest < 2, f"{neighbour.slowest:.2f} s"  # 1 s on a machine that nothing else keeps busy
    assert grown < 100 * MIB, f"{grown / MIB:.0f} MiB"


def test_large_images_do_not_wait_for_the_memory_of_large_results(service):
    """Jobs of 800 MiB, of ten seconds and more, leave a photo of 20 megapixels its turn."""
    asked = Activations(["block1_conv1"], output=Output((1, 1)))
    with Client(service.target, timeout=60) as client:
        stuck = [client.submit([PHOTO + np.uint8(n)] * 60, [asked], model="stuck", timeout=600) for n in range(2)]
        until(lambda: all(job.status().state == job_pb2.JOB_STATE_RUNNING for job in stuck))
        result = client.visualize(picture("JPEG", 4500), [Saliency()], model="null", timeout=7)
        for job in stuck:
            job.cancel()
    assert result["saliency"].shape == (1, 224, 224)


def _resident(pid) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def test_the_pixels_of_a_job_are_bounded(service, huge):
    with Client(service.target) as client, pytest.raises(InvalidArgument) as caught:
        client.visualize([huge + bytes([n, 0]) for n in range(64)], [Saliency()], model="null")
    assert caught.value.field == "spec.images"
    assert f"{64 * SIDE * SIDE} pixels; allowed: 512000000" in str(caught.value)


def test_a_large_image_is_what_a_small_one_is(service, huge):
    """It gets its maps, and what is wrong with one is told."""
    with Client(service.target, timeout=60) as client:
        result = client.visualize(huge, [Saliency()], model="null")
        assert result["saliency"].shape == (1, 224, 224)
        broken = picture("PNG", 5000)
        with pytest.raises(InvalidArgument, match="damaged or truncated"):
            client.visualize(broken[: len(broken) // 2], [Saliency()], model="null")


def test_a_decoder_that_is_killed_costs_its_image_alone(service, huge):
    """As by the kernel, when there is no memory left."""
    with Client(service.target, timeout=60) as client, BackgroundCaller(service.target) as neighbour:
        client.visualize(huge, [Saliency()], model="null", fresh=True)
        for pid in decoders(service.null):
            os.kill(pid, signal.SIGKILL)
        client.visualize(huge, [Saliency()], model="null", fresh=True)
    assert not neighbour.errors


def chunked_png() -> bytes:
    """With a million chunks before its pixels."""
    png = picture("PNG", 8)
    chunk = struct.pack(">I", 0) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return png[:33] + chunk * 1_000_000 + png[33:]


def filled_jpeg() -> bytes:
    """With millions of fill bytes before its picture, of a kind that libjpeg-turbo is not asked of."""
    jpeg = picture("JPEG", 8)
    return jpeg[:2] + b"\xff" * 8_000_000 + jpeg[2:-200]


def tagged_tiff() -> bytes:
    """Whose tags all point to the same megabyte."""
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(tag, 7, 1 << 20, 50_000) for tag in range(40_000, 43_000)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + bytes(1_100_000)


def commented_gif() -> bytes:
    """With millions of empty comments."""
    gif = picture("GIF", 8)
    at = 13 + (3 << ((gif[10] & 7) + 1) if gif[10] & 0x80 else 0)
    return gif[:at] + b"!\xfe\x01x\0" * 1_000_000 + gif[at:]


@pytest.mark.parametrize("make", [chunked_png, filled_jpeg, tagged_tiff, commented_gif])
def test_headers_of_very_many_parts_are_not_walked(service, make):
    data = make()
    with Client(service.target, timeout=60) as client, BackgroundCaller(service.target, pause=0.01) as neighbour:
        before = resident(service.front)
        reset_peak(service.front)
        began = time.monotonic()
        with pytest.raises(InvalidArgument, match=r"too many|damaged|no image"):
            client.visualize(data, [Saliency()], model="null")
        took = time.monotonic() - began
    assert took < 2
    assert neighbour.slowest < 1
    assert peak(service.front) - before < 200 * MIB
