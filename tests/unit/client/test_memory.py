"""The files in memory that a client's calls take turns with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from convlens.client import memory
from convlens.client.memory import CAPACITY, MOST, OFFER, Memory

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no anonymous files")

FILES = Path("/proc/self/fd")


@pytest.fixture
def offered():
    offered = Memory()
    offered.heard({OFFER: "memfd"})
    yield offered
    offered.close()


def files():
    """How many this process has open."""
    links = {os.fspath(it.readlink()) for it in FILES.iterdir() if it.is_symlink()}
    return sum("memfd:convlens" in it for it in links)


def test_nothing_is_shared_before_the_server_offers_it():
    assert Memory().region([b"image"]) is None


def test_an_offer_is_withdrawn_by_a_call_that_does_not_repeat_it(offered):
    offered.heard({})
    assert offered.region([b"image"]) is None


def test_a_server_that_refused_once_is_not_asked_again(offered):
    offered.refused()
    offered.heard({OFFER: "memfd"})
    assert offered.region([b"image"]) is None


def test_images_lie_one_after_another(offered):
    region, told = offered.region([b"one", memoryview(b"three"), b""])
    assert list(told.sizes) == [3, 5, 0]
    path = Path(f"/proc/{told.process}/fd/{told.descriptor}")
    assert path.read_bytes()[:9] == b"onethree\0"
    assert os.fspath(path.readlink()) == f"/memfd:convlens-{told.name} (deleted)"
    region.close()


def test_what_is_there_is_read_one_buffer_after_another(offered):
    images = [bytes([i % 251]) * 3 for i in range(3000)]
    region, _ = offered.region(images)
    found = [bytearray(3) for _ in images]
    assert region.read([memoryview(it) for it in found]) == 9000
    assert found == images
    assert region.read([memoryview(bytearray(CAPACITY)), memoryview(bytearray(1))]) == CAPACITY
    region.close()


def test_a_file_serves_one_call_after_another_but_never_two(offered):
    first, _ = offered.region([b"image"])
    second, _ = offered.region([b"image"])
    assert first is not second
    offered.give(first)
    assert offered.region([b"image"])[0] is first
    second.close()
    first.close()


def test_what_waits_is_bounded(offered, monkeypatch):
    monkeypatch.setattr(memory, "KEPT_BYTES", 10)
    before = files()
    held = [offered.region([b"12345"])[0] for _ in range(4)]
    assert files() == before + 4
    for region in held:
        offered.give(region)
    assert files() == before + 2
    offered.close()
    assert files() == before


def test_calls_beyond_a_number_do_without(offered):
    held = [offered.region([b"image"])[0] for _ in range(MOST)]
    assert offered.region([b"image"]) is None
    offered.drop(held.pop())
    held.append(offered.region([b"image"])[0])
    assert offered.region([b"image"]) is None
    before = files()
    for region in held:
        offered.give(region)
    assert files() == before
    offered.close()
    assert files() == before - MOST
    assert len(offered._slots) == MOST


def test_files_go_with_a_client_that_was_not_closed():
    before = files()
    lost = Memory()
    lost.heard({OFFER: "memfd"})
    lost.give(lost.region([b"image"])[0])
    assert files() == before + 1
    del lost
    assert files() == before


def test_what_cannot_be_had_is_done_without(offered, monkeypatch):
    assert offered.region([memoryview(bytearray(CAPACITY + 1))]) is None

    def none(_name, _flags):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", none)
    assert offered.region([b"image"]) is None
    assert len(offered._slots) == MOST


def test_a_system_without_anonymous_files_shares_nothing(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    without = Memory()
    without.heard({OFFER: "memfd"})
    assert without.region([b"image"]) is None
