"""FilePool: files of deleted payloads are reused, each by one writer, and the pool is bounded."""

from __future__ import annotations

import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from convlens.jobs.payloads import file_pool
from convlens.jobs.payloads.directory import DirectoryPayloads
from convlens.jobs.payloads.store import BATCH_BYTES, PayloadGone

OLD, NEW, SMALL, LARGE = (f"{i:032x}" for i in range(4))
"""Names of payloads."""


def payload_name(i: int, prefix: str = "a") -> str:
    return f"{prefix}{i:031x}"


def pooled_files(folder):
    return sorted((folder / ".spares").iterdir())


def test_a_deleted_payloads_file_is_reused_and_holds_what_was_written_last(store, tmp_path):
    store.put(OLD, [b"o" * 5000], 60)
    inode = (tmp_path / OLD).stat().st_ino
    store.delete([OLD, payload_name(1)])
    with pytest.raises(PayloadGone):
        store.read(OLD, 0, 1)
    assert store.put(NEW, [b"n" * 4000, b"n" * 500, b"m"], 60) == 4501
    assert (tmp_path / NEW).stat().st_ino == inode
    assert store.read(NEW, 4490, 11) == b"n" * 10 + b"m"
    assert (tmp_path / NEW).stat().st_size == 4501
    assert not pooled_files(tmp_path)


def test_a_payload_of_another_size_leaves_a_pooled_file_alone(store, tmp_path):
    store.put(OLD, [b"o" * 5000], 60)
    store.delete([OLD])
    store.put(SMALL, [b"s"], 60)
    store.put(LARGE, [b"l" * 50_000], 60)
    assert len(pooled_files(tmp_path)) == 1


def test_payloads_of_more_than_a_batch_reuse_pooled_files(store, tmp_path):
    large = [bytes(BATCH_BYTES), b"large"]
    store.put(LARGE, large, 60)
    inode = (tmp_path / LARGE).stat().st_ino
    store.delete([LARGE])
    assert store.put(NEW, [*large, *large], 60) == 2 * BATCH_BYTES + 10
    assert (tmp_path / NEW).stat().st_ino == inode
    assert store.read(NEW, 2 * BATCH_BYTES + 5, 5) == b"large"


def test_two_processes_never_get_one_file(store, tmp_path):
    other = DirectoryPayloads(tmp_path, time.time)
    for i in range(8):
        store.put(payload_name(i), [bytes(5000)], 60)
    store.delete([payload_name(i) for i in range(8)])
    for i in range(8):
        (store if i % 2 else other).put(payload_name(i, "b"), [bytes([i]) * 5000], 60)
    assert [store.read(payload_name(i, "b"), 0, 5000) for i in range(8)] == [bytes([i]) * 5000 for i in range(8)]
    assert len({(tmp_path / payload_name(i, "b")).stat().st_ino for i in range(8)}) == 8


def test_threads_share_a_store(store, tmp_path):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(thread):
        for i in range(100):
            name, data = payload_name(1000 * thread + i), bytes([thread, i]) * 2000
            store.put(name, [data], 60)
            assert store.read(name, 0, 4000) == data
            store.delete([name])

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert 1 <= len(pooled_files(tmp_path)) <= 8


def test_reading_a_file_that_is_reused_meanwhile_raises_payload_gone(store, tmp_path, monkeypatch):
    store.put(OLD, [b"o" * 5000], 60)
    pread = os.pread

    def replace_and_read(*args):
        store.delete([OLD])
        store.put(NEW, [b"a" * 5000], 60)
        return pread(*args)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", replace_and_read)
        with pytest.raises(PayloadGone):
            store.read(OLD, 0, 5000)
    assert store.read(NEW, 0, 5000) == b"a" * 5000
    assert not pooled_files(tmp_path)


def test_the_file_pool_is_bounded_in_bytes_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(file_pool, "MAX_BYTES", 12_000)
    monkeypatch.setattr(file_pool, "LISTING_SECONDS", 0.0)
    store = DirectoryPayloads(tmp_path, time.time)
    for i in range(4):
        store.put(payload_name(i), [bytes(5000)], 60)
    store.delete([payload_name(i) for i in range(4)])
    assert len(pooled_files(tmp_path)) == 2
    store.sweep()
    assert len(pooled_files(tmp_path)) == 2
    monkeypatch.setattr(file_pool, "MAX_AGE", -60.0)
    store.sweep()
    assert not pooled_files(tmp_path)


def test_the_file_pool_is_bounded_in_files(store, tmp_path):
    stores = [store, *(DirectoryPayloads(tmp_path, time.time) for _ in range(3))]
    for i in range(4000):
        stores[i % 4].put(payload_name(i), [b"tiny", bytes(i)], 60)
    for i in range(4000):
        stores[i % 4].delete([payload_name(i)])
    assert 100 < len(pooled_files(tmp_path)) <= file_pool.MAX_FILES + 4 * file_pool.MAX_FILES // file_pool.SHARE
    assert {path.name for path in tmp_path.iterdir()} == {".spares"}


def test_payloads_are_written_and_deleted_when_the_pools_folder_is_gone(store, tmp_path):
    store.put(OLD, [b"x" * 5000], 60)
    store.delete([OLD])
    shutil.rmtree(tmp_path / ".spares")
    store.put(NEW, [b"x" * 5000], 60)
    store.delete([NEW])
    store.sweep()
    assert not list(tmp_path.iterdir())
