"""Payloads in a folder: whole or gone, whatever becomes of their files, and files written again."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from convlens.jobs import payloads, spares
from convlens.jobs.payloads import DirectoryPayloads, PayloadGone


@pytest.fixture
def store(tmp_path) -> DirectoryPayloads:
    return DirectoryPayloads(tmp_path, time.time)


def put(store, name, body, *more):
    return store.put(name, body, sum(map(len, body)), *more)


def spare_files(folder):
    return sorted((folder / ".spares").iterdir())


def test_a_file_is_written_again_and_holds_what_was_written_last(store, tmp_path):
    put(store, "old", [b"o" * 5000], 60)
    inode = (tmp_path / "old").stat().st_ino
    store.delete(["old", "never-there"])
    with pytest.raises(PayloadGone):
        store.read("old", 0, 1)
    assert put(store, "new", [b"n" * 4000, b"n" * 500], 60, lambda: b"m") == 4501
    assert (tmp_path / "new").stat().st_ino == inode
    assert store.read("new", 4490, 11) == b"n" * 10 + b"m"
    assert (tmp_path / "new").stat().st_size == 4501
    assert not spare_files(tmp_path)


def test_other_sizes_leave_a_spare_alone(store, tmp_path):
    put(store, "old", [b"o" * 5000], 60)
    store.delete(["old"])
    put(store, "small", [b"s"], 60)
    put(store, "large", [b"l" * 50_000], 60)
    assert len(spare_files(tmp_path)) == 1


def test_two_processes_never_get_one_file(store, tmp_path):
    other = DirectoryPayloads(tmp_path, time.time)
    for i in range(8):
        put(store, f"old{i}", [bytes(5000)], 60)
    store.delete([f"old{i}" for i in range(8)])
    for i in range(8):
        put(store if i % 2 else other, f"new{i}", [bytes([i]) * 5000], 60)
    assert [store.read(f"new{i}", 0, 5000) for i in range(8)] == [bytes([i]) * 5000 for i in range(8)]
    assert len({(tmp_path / f"new{i}").stat().st_ino for i in range(8)}) == 8


def test_threads_share_a_store(store, tmp_path):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(thread):
        for i in range(100):
            name, data = f"{thread}-{i}", bytes([thread, i]) * 2000
            put(store, name, [data], 60)
            assert store.read(name, 0, 4000) == data
            store.delete([name])

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert 1 <= len(spare_files(tmp_path)) <= 8


def test_a_read_of_a_file_that_is_written_again_meanwhile_finds_nothing(store, tmp_path, monkeypatch):
    put(store, "old", [b"o" * 5000], 60)
    pread = os.pread

    def late(*args):
        store.delete(["old"])
        put(store, "new", [b"a" * 5000], 60)
        return pread(*args)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", late)
        with pytest.raises(PayloadGone):
            store.read("old", 0, 5000)
    assert store.read("new", 0, 5000) == b"a" * 5000
    assert not spare_files(tmp_path)


def test_spares_are_bounded_and_not_kept_for_ever(store, tmp_path, monkeypatch):
    monkeypatch.setattr(spares, "MOST_BYTES", 12_000)
    monkeypatch.setattr(spares, "LOOK_SECONDS", 0.0)
    for i in range(4):
        put(store, f"old{i}", [bytes(5000)], 60)
    store.delete([f"old{i}" for i in range(4)])
    assert len(spare_files(tmp_path)) == 2
    store.sweep()
    assert len(spare_files(tmp_path)) == 2
    monkeypatch.setattr(spares, "SECONDS", -60.0)
    store.sweep()
    assert not spare_files(tmp_path)


def test_sweep_deletes_what_is_over_and_leaves_the_rest(store, tmp_path):
    put(store, "over", [b"x"], 60)
    put(store, "lasts", [b"x"], 60)
    os.utime(tmp_path / "over", (1, 1))
    store.sweep()
    assert {it.name for it in tmp_path.iterdir()} == {"lasts", ".spares"}


def test_what_cannot_be_deleted_is_told_and_swept_when_its_time_is_over(store, tmp_path, caplog):
    put(store, "old", [b"x"], 60)
    (tmp_path / ".spares").rmdir()
    (tmp_path / ".spares").write_bytes(b"no folder")
    store.delete(["old"])
    assert "payloads=old are not deleted now: " in caplog.text
    (tmp_path / ".spares").unlink()
    (tmp_path / ".spares").mkdir()
    os.utime(tmp_path / "old", (1, 1))
    store.sweep()
    with pytest.raises(PayloadGone):
        store.read("old", 0, 1)


@pytest.mark.parametrize(
    ("mounts", "folder", "waits"),
    [
        ("/dev/vda / ext4 rw 0 0\ntmpfs {} tmpfs rw 0 0\n", "shared/payloads", False),
        (
            "/dev/vda / ext4 rw 0 0\ntmpfs {} tmpfs rw 0 0\nserver:/data {}/shared nfs4 rw 0 0\n",
            "shared/payloads",
            True,
        ),
        ("tmpfs / tmpfs rw 0 0\n/dev/vda {} ext4 rw 0 0\n", "payloads", True),
        ("tmpfs {} tmpfs rw 0 0\n", "../elsewhere", True),
        (None, "payloads", True),
    ],
)
def test_only_a_folder_in_memory_needs_no_waiting_for(tmp_path, monkeypatch, mounts, folder, waits):
    place = tmp_path / "place"
    place.mkdir()
    table = tmp_path / "mounts"
    if mounts:
        table.write_text(mounts.replace("{}", str(place)))
    monkeypatch.setattr(payloads, "MOUNTS", table)
    assert DirectoryPayloads(place / folder, time.time).waits == waits
