"""DirectoryPayloads: payloads are complete or gone, and files of others are not touched."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from convlens.jobs.payloads import directory, file_pool, payload_files
from convlens.jobs.payloads import store as payload_store
from convlens.jobs.payloads.directory import DirectoryPayloads
from convlens.jobs.payloads.own_folder import UnusableFolder
from convlens.jobs.payloads.store import BATCH_BYTES, PayloadGone, StoreFull

OLD, NEW, EXPIRED, LASTING, OTHER = (f"{i:032x}" for i in range(5))
"""Names of payloads."""


def test_sweep_deletes_only_expired_payloads(store, tmp_path):
    store.put(EXPIRED, [b"x"], 60)
    store.put(LASTING, [b"x"], 60)
    os.utime(tmp_path / EXPIRED, (1, 1))
    store.sweep()
    assert {entry.name for entry in tmp_path.iterdir()} == {LASTING, ".spares"}


def test_a_payload_that_cannot_be_deleted_is_logged(store, tmp_path, caplog):
    (tmp_path / OLD).mkdir()
    store.delete([OLD])
    assert f"payloads={OLD} are not deleted now: " in caplog.text


def test_a_batch_is_freed_before_the_next_is_drawn(monkeypatch):
    monkeypatch.setattr(payload_store, "BATCH_BYTES", 20)
    alive = []

    def parts():
        for _ in range(9):
            part = np.zeros(10, np.uint8)
            alive.append(weakref.ref(part))
            yield part.data
            del part
            assert sum(ref() is not None for ref in alive) <= 3  # a batch and the part drawn last

    assert [len(batch) for batch in payload_store.in_batches(parts())] == [2, 2, 2, 2, 1]


@pytest.fixture
def others(tmp_path):
    """A folder of another program, with files whose names resemble those of payloads."""
    folder = tmp_path / "others"
    folder.mkdir()
    for name in ("notes.txt", "holiday", LASTING, f"{LASTING}.part", ".hidden"):
        (folder / name).write_text("precious")
        os.utime(folder / name, (1, 1))
    return folder


@pytest.mark.parametrize("name", ["notes.txt", "holiday", "a-folder/", LASTING, ".spares"])
def test_a_folder_that_holds_other_files_is_refused(tmp_path, name):
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    path.parent.chmod(0o755)
    path.mkdir() if name.endswith("/") else path.write_text("precious")
    with pytest.raises(UnusableFolder, match=r"holds other things than payloads \('.*give one that is empty"):
        DirectoryPayloads(tmp_path / "folder", time.time)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_a_fresh_file_system_is_an_empty_folder(tmp_path):
    (tmp_path / "lost+found").mkdir(mode=0o700)
    for _ in range(2):
        store = DirectoryPayloads(tmp_path, lambda: time.time() + 3600)
        store.put(OLD, [b"x"], -60)
        store.sweep()
        assert {entry.name for entry in tmp_path.iterdir()} == {"lost+found", ".spares"}


def test_only_files_that_the_store_created_are_deleted(store, tmp_path, others, monkeypatch):
    monkeypatch.setattr(payload_files, "UNLOCKED_SECONDS", -1.0)
    monkeypatch.setattr(file_pool, "MAX_AGE", -60.0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    (tmp_path / EXPIRED).symlink_to(elsewhere)
    (tmp_path / f"{EXPIRED}.part").symlink_to(elsewhere)
    (tmp_path / OTHER).mkdir()
    others.rename(tmp_path / "folder")
    shutil.copytree(tmp_path / "folder", tmp_path / ".spares", dirs_exist_ok=True)
    for entry in (tmp_path / "folder").iterdir():
        entry.rename(tmp_path / entry.name)
    (tmp_path / "folder").rmdir()
    before = set(tmp_path.rglob("*"))
    store.put(NEW, [b"x"], -60)
    store.sweep()
    assert set(tmp_path.rglob("*")) == before
    assert elsewhere.read_text() == "precious"


def test_a_file_without_a_payloads_name_is_not_deleted(store, tmp_path, others, caplog):
    store.put(OLD, [b"x"], 60)
    store.delete(["others/notes.txt", OLD, "../x"])
    assert (others / "notes.txt").exists()
    assert not (tmp_path / OLD).exists()
    assert "no payloads' names: ['../x', 'others/notes.txt']" in caplog.text


def test_links_are_not_followed(store, tmp_path):
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.write_bytes(b"e" * 5000)
    (tmp_path / OLD).symlink_to(elsewhere)
    (tmp_path / f"{NEW}.part").symlink_to(elsewhere)
    (tmp_path / ".spares" / f"5000-{OLD}-0").symlink_to(elsewhere)
    (tmp_path / ".spares" / f"5000-{OLD}-1").hardlink_to(elsewhere)
    with pytest.raises(PayloadGone):
        store.read(OLD, 0, 10)
    store.put(NEW, [b"n" * 5000], 60)
    store.put(OLD, [b"o" * 5000], 60)
    assert (store.read(NEW, 0, 2), store.read(OLD, 0, 2)) == (b"nn", b"oo")
    assert elsewhere.read_bytes() == b"e" * 5000
    store.delete([OLD])
    (tmp_path / OLD).symlink_to(elsewhere)
    store.delete([OLD])
    assert elsewhere.exists()


def test_a_moved_folder_stays_in_use_when_a_link_takes_its_path(tmp_path, others):
    folder = tmp_path / "payloads"
    store = DirectoryPayloads(folder, time.time)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(others)
    before = set(others.rglob("*"))
    store.put(EXPIRED, [b"x"], -60)
    store.put(OLD, [b"x"], 60)
    store.delete([LASTING])
    store.sweep()
    assert set(others.rglob("*")) == before
    assert {entry.name for entry in (tmp_path / "moved").iterdir()} == {".spares", OLD}


def test_a_removed_folder_is_created_again(store, tmp_path):
    reader = DirectoryPayloads(tmp_path, time.time)
    store.put(OLD, [b"x"], 60)
    shutil.rmtree(tmp_path)
    store.sweep()
    store.delete([OLD])
    with pytest.raises(PayloadGone):
        reader.read(OLD, 0, 1)
    store.put(NEW, [b"new"], 60)
    assert reader.read(NEW, 0, 3) == b"new"
    assert (tmp_path / NEW).exists()


@pytest.mark.parametrize("umask", [0, 0o022])
def test_the_folder_and_its_files_are_closed_to_other_users(tmp_path, umask, caplog):
    folder = tmp_path / "payloads"
    folder.mkdir()
    folder.chmod(0o755)
    before = os.umask(umask)
    try:
        store = DirectoryPayloads(folder, time.time)
        store.put(OLD, [b"x"], 60)
    finally:
        os.umask(before)
    assert "was open to other users (mode 755): it is 700 now" in caplog.text
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / ".spares", folder / OLD)] == [0o700, 0o700, 0o600]


def test_a_folder_that_cannot_be_private_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    for name, reason in (
        ("file", "is no folder"),
        ("file/inner", "cannot be used: Not a directory"),
        ("link", "is a symbolic link"),
        ("x" * 300, "cannot be used: File name too long"),
    ):
        with pytest.raises(UnusableFolder, match=f"{name} {reason}.*; give "):
            DirectoryPayloads(tmp_path / name, time.time)
    with pytest.raises(UnusableFolder, match=r"(is for every user|belongs to another user)"):
        DirectoryPayloads(Path("/dev/shm"), time.time)
    if os.geteuid() == 0:
        (tmp_path / "another").mkdir()
        os.chown(tmp_path / "another", 12345, 12345)
        with pytest.raises(UnusableFolder, match="belongs to another user"):
            DirectoryPayloads(tmp_path / "another", time.time)


def test_the_file_of_a_killed_writer_is_deleted_and_that_of_a_running_one_is_not(store, tmp_path, monkeypatch):
    monkeypatch.setattr(payload_files, "UNLOCKED_SECONDS", -1.0)
    code = """if True:
        import os, signal, sys, time
        from pathlib import Path
        from convlens.jobs.payloads.directory import DirectoryPayloads
        store = DirectoryPayloads(Path(sys.argv[1]), time.time)
        os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        store.put(sys.argv[2], [b"x" * 5000], 60)
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path), OLD], check=False)
    assert (tmp_path / f"{OLD}.part").exists()

    def parts():
        yield bytes(BATCH_BYTES)  # written before the next part is drawn
        assert (tmp_path / f"{NEW}.part").stat().st_size == BATCH_BYTES
        store.sweep()
        yield b"end"

    assert store.put(NEW, parts(), 60) == BATCH_BYTES + 3
    assert {entry.name for entry in tmp_path.iterdir()} == {NEW, ".spares"}


def test_a_write_that_fails_raises_store_full_and_leaves_no_file(store, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StoreFull, match="File too large"):
            store.put(OLD, [b"x" * 20_000], 60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {entry.name for entry in tmp_path.iterdir()} == {".spares"}


@pytest.mark.parametrize(
    ("mounts", "folder", "may_block"),
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
def test_reads_may_block_unless_the_folder_is_in_memory(tmp_path, monkeypatch, mounts, folder, may_block):
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    table = tmp_path / "mounts"
    if mounts:
        table.write_text(mounts.replace("{}", str(mounted)))
    monkeypatch.setattr(directory, "MOUNTS", table)
    assert DirectoryPayloads(mounted / folder, time.time).may_block == may_block


def test_a_folder_that_replaces_another_is_used_by_all_processes(tmp_path):
    """As happens when the folder is moved and a process that starts later creates it again."""
    folder = tmp_path / "payloads"
    server = DirectoryPayloads(folder, time.time)
    folder.rename(tmp_path / "moved")
    worker = DirectoryPayloads(folder, time.time)
    server.put(NEW, [b"images"], 60)
    assert worker.read(NEW, 0, 6) == b"images"
    worker.put(OLD, [b"result"], 60)
    assert server.read(OLD, 0, 6) == b"result"
