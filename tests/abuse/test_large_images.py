"""Images that are small as files and large in memory do not delay the images of other callers."""

from __future__ import annotations

import io
import os
import signal
import struct
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
    service.worker_process = service.worker("null=null", "slow=null,device_ms=10000+0")
    service.server_process, service.target = service.server()
    return service


def picture(kind="WEBP", side=SIDE, colour=255, **options) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (colour, 255, 255)).save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def huge():
    """A WebP of 2.5 kB with 64 million pixels."""
    return picture(lossless=True)


def decoders(worker) -> list[int]:
    """The ids of the processes in which a worker decodes large images."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == worker.pid:
            pids.append(int(path.parent.name))
    return pids


def test_large_images_do_not_delay_other_callers(service, huge, scale):
    """64 jobs of one large image each; the decoders' memory is bounded, and the worker's does not grow."""
    worker = service.worker_process
    jobs = []
    with Client(service.target, timeout=60) as client, BackgroundCaller(service.target) as ordinary_caller:
        reset_peak(worker)
        before = resident(worker)
        jobs = [client.submit(huge + bytes([n, 0]), [Saliency()], model="null", timeout=600) for n in range(64)]
        time.sleep(4 * scale)  # the other caller calls all the while
        decoder_bytes = sum(_resident(pid) for pid in decoders(worker))
        growth = peak(worker) - before
        for job in jobs:
            job.cancel()
    assert not ordinary_caller.errors
    assert len(ordinary_caller.seconds) > 10 * scale
    assert ordinary_caller.slowest < 2, f"{ordinary_caller.slowest:.2f} s"  # 1 s on an idle machine
    assert growth < 100 * MIB, f"{growth / MIB:.0f} MiB"
    assert decoder_bytes < 2 * 1300 * MIB, f"{decoder_bytes / MIB:.0f} MiB"


def translucent_png(side=3990) -> bytes:
    """A PNG of 60 kB with just below 16 million pixels."""
    out = io.BytesIO()
    Image.new("RGBA", (side, side), (1, 2, 3, 100)).save(out, "PNG")
    return out.getvalue()


def rotated_jpeg(side=3990) -> bytes:
    """A JPEG with just below 16 million pixels and an EXIF rotation."""
    exif = Image.Exif()
    exif[0x112] = 6
    return picture("JPEG", side, exif=exif)


@pytest.mark.parametrize("make", [translucent_png, rotated_jpeg])
def test_images_of_millions_of_pixels_do_not_delay_other_callers(service, scale, make):
    data, worker = make(), service.worker_process
    with Client(service.target, timeout=60) as client, BackgroundCaller(service.target) as ordinary_caller:
        reset_peak(worker)
        before = resident(worker)
        jobs = [client.submit(data + bytes([n, 0]), [Saliency()], model="null", timeout=600) for n in range(48)]
        time.sleep(2.5 * scale)  # the other caller calls all the while
        growth = peak(worker) - before
        for job in jobs:
            job.cancel()
    assert not ordinary_caller.errors
    assert ordinary_caller.slowest < 2, f"{ordinary_caller.slowest:.2f} s"  # 1 s on an idle machine
    assert growth < 100 * MIB, f"{growth / MIB:.0f} MiB"


def test_large_images_do_not_wait_for_the_memory_of_large_results(service):
    """A photo of 20 megapixels is decoded while two jobs reserve 800 MiB each for ten seconds."""
    activations = Activations(["block1_conv1"], output=Output((1, 1)))
    with Client(service.target, timeout=60) as client:
        jobs = [client.submit([PHOTO + np.uint8(n)] * 60, [activations], model="slow", timeout=600) for n in range(2)]
        until(lambda: all(job.status().state == job_pb2.JOB_STATE_RUNNING for job in jobs))
        result = client.visualize(picture("JPEG", 4500), [Saliency()], model="null", timeout=7)
        for job in jobs:
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


def test_a_large_image_gets_its_maps_or_an_error_like_a_small_one(service, huge):
    with Client(service.target, timeout=60) as client:
        result = client.visualize(huge, [Saliency()], model="null")
        assert result["saliency"].shape == (1, 224, 224)
        broken = picture("PNG", 5000)
        with pytest.raises(InvalidArgument, match="damaged or truncated"):
            client.visualize(broken[: len(broken) // 2], [Saliency()], model="null")


def test_the_next_image_is_decoded_after_a_decoder_was_killed(service, huge):
    """Killed with SIGKILL, as by the kernel when memory runs out."""
    with Client(service.target, timeout=60) as client, BackgroundCaller(service.target) as ordinary_caller:
        client.visualize(huge, [Saliency()], model="null", fresh=True)
        for pid in decoders(service.worker_process):
            os.kill(pid, signal.SIGKILL)
        client.visualize(huge, [Saliency()], model="null", fresh=True)
    assert not ordinary_caller.errors


def chunked_png() -> bytes:
    """A PNG with a million chunks before its pixels."""
    png = picture("PNG", 8)
    chunk = struct.pack(">I", 0) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return png[:33] + chunk * 1_000_000 + png[33:]


def filled_jpeg() -> bytes:
    """A truncated JPEG with millions of fill bytes before its picture."""
    jpeg = picture("JPEG", 8)
    return jpeg[:2] + b"\xff" * 8_000_000 + jpeg[2:-200]


def tagged_tiff() -> bytes:
    """A TIFF whose tags all point to the same megabyte."""
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(tag, 7, 1 << 20, 50_000) for tag in range(40_000, 43_000)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + bytes(1_100_000)


def commented_gif() -> bytes:
    """A GIF with a million short comments."""
    gif = picture("GIF", 8)
    header = 13 + (3 << ((gif[10] & 7) + 1) if gif[10] & 0x80 else 0)
    return gif[:header] + b"!\xfe\x01x\0" * 1_000_000 + gif[header:]


@pytest.mark.parametrize("make", [chunked_png, filled_jpeg, tagged_tiff, commented_gif])
def test_images_with_millions_of_header_parts_are_refused_quickly(service, make):
    data = make()
    with Client(service.target, timeout=60) as client, BackgroundCaller(service.target, pause=0.01) as ordinary_caller:
        before = resident(service.server_process)
        reset_peak(service.server_process)
        start = time.monotonic()
        with pytest.raises(InvalidArgument, match=r"too many|damaged|no image"):
            client.visualize(data, [Saliency()], model="null")
        seconds = time.monotonic() - start
    assert seconds < 2
    assert ordinary_caller.slowest < 1
    assert peak(service.server_process) - before < 200 * MIB
