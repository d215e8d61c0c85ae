"""Payloads in a folder: whole or gone, whatever becomes of their files; files written again; whose the folder is."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from convlens.jobs.payloads import directory, file_pool
from convlens.jobs.payloads.directory import DirectoryPayloads
from convlens.jobs.payloads.own_folder import UnusableFolder
from convlens.jobs.payloads.store import PayloadGone, StoreFull

OLD, NEW, OVER, LASTS, SMALL, LARGE = (f"{i:032x}" for i in range(6))
"""Names of payloads."""


def numbered(i: int, prefix: str = "a") -> str:
    return f"{prefix}{i:031x}"


@pytest.fixture
def store(tmp_path) -> DirectoryPayloads:
    return DirectoryPayloads(tmp_path, time.time)


def put(store, name, body, *more):
    return store.put(name, body, sum(map(len, body)), *more)


def spare_files(folder):
    return sorted((folder / ".spares").iterdir())


def test_a_file_is_written_again_and_holds_what_was_written_last(store, tmp_path):
    put(store, OLD, [b"o" * 5000], 60)
    inode = (tmp_path / OLD).stat().st_ino
    store.delete([OLD, numbered(1)])
    with pytest.raises(PayloadGone):
        store.read(OLD, 0, 1)
    assert put(store, NEW, [b"n" * 4000, b"n" * 500], 60, lambda: b"m") == 4501
    assert (tmp_path / NEW).stat().st_ino == inode
    assert store.read(NEW, 4490, 11) == b"n" * 10 + b"m"
    assert (tmp_path / NEW).stat().st_size == 4501
    assert not spare_files(tmp_path)


def test_other_sizes_leave_a_spare_alone(store, tmp_path):
    put(store, OLD, [b"o" * 5000], 60)
    store.delete([OLD])
    put(store, SMALL, [b"s"], 60)
    put(store, LARGE, [b"l" * 50_000], 60)
    assert len(spare_files(tmp_path)) == 1


def test_two_processes_never_get_one_file(store, tmp_path):
    other = DirectoryPayloads(tmp_path, time.time)
    for i in range(8):
        put(store, numbered(i), [bytes(5000)], 60)
    store.delete([numbered(i) for i in range(8)])
    for i in range(8):
        put(store if i % 2 else other, numbered(i, "b"), [bytes([i]) * 5000], 60)
    assert [store.read(numbered(i, "b"), 0, 5000) for i in range(8)] == [bytes([i]) * 5000 for i in range(8)]
    assert len({(tmp_path / numbered(i, "b")).stat().st_ino for i in range(8)}) == 8


def test_threads_share_a_store(store, tmp_path):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(thread):
        for i in range(100):
            name, data = numbered(1000 * thread + i), bytes([thread, i]) * 2000
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
    put(store, OLD, [b"o" * 5000], 60)
    pread = os.pread

    def late(*args):
        store.delete([OLD])
        put(store, NEW, [b"a" * 5000], 60)
        return pread(*args)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", late)
        with pytest.raises(PayloadGone):
            store.read(OLD, 0, 5000)
    assert store.read(NEW, 0, 5000) == b"a" * 5000
    assert not spare_files(tmp_path)


def test_spares_are_bounded_and_not_kept_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(file_pool, "MOST_BYTES", 12_000)
    monkeypatch.setattr(file_pool, "LOOK_SECONDS", 0.0)
    store = DirectoryPayloads(tmp_path, time.time)
    for i in range(4):
        put(store, numbered(i), [bytes(5000)], 60)
    store.delete([numbered(i) for i in range(4)])
    assert len(spare_files(tmp_path)) == 2
    store.sweep()
    assert len(spare_files(tmp_path)) == 2
    monkeypatch.setattr(file_pool, "SECONDS", -60.0)
    store.sweep()
    assert not spare_files(tmp_path)


def test_spares_are_bounded_in_number_too(store, tmp_path):
    stores = [store, *(DirectoryPayloads(tmp_path, time.time) for _ in range(3))]
    for i in range(4000):
        put(stores[i % 4], numbered(i), [b"tiny", bytes(i)], 60)
    for i in range(4000):
        stores[i % 4].delete([numbered(i)])
    assert 100 < len(spare_files(tmp_path)) <= file_pool.MOST_FILES + 4 * file_pool.MOST_FILES // file_pool.SHARE
    assert {it.name for it in tmp_path.iterdir()} == {".spares"}


def test_sweep_deletes_what_is_over_and_leaves_the_rest(store, tmp_path):
    put(store, OVER, [b"x"], 60)
    put(store, LASTS, [b"x"], 60)
    os.utime(tmp_path / OVER, (1, 1))
    store.sweep()
    assert {it.name for it in tmp_path.iterdir()} == {LASTS, ".spares"}


def test_what_cannot_be_deleted_is_told(store, tmp_path, caplog):
    (tmp_path / OLD).mkdir()
    store.delete([OLD])
    assert f"payloads={OLD} are not deleted now: " in caplog.text


def test_without_the_spares_folder_payloads_are_written_and_deleted_all_the_same(store, tmp_path):
    put(store, OLD, [b"x" * 5000], 60)
    store.delete([OLD])
    shutil.rmtree(tmp_path / ".spares")
    put(store, NEW, [b"x" * 5000], 60)
    store.delete([NEW])
    store.sweep()
    assert not list(tmp_path.iterdir())


# --- whose the folder is ---


@pytest.fixture
def others(tmp_path):
    """Files of somebody else, and a folder of theirs, that payloads' files could be mistaken for."""
    place = tmp_path / "others"
    place.mkdir()
    for name in ("notes.txt", "holiday", LASTS, f"{LASTS}.part", ".hidden"):
        (place / name).write_text("precious")
        os.utime(place / name, (1, 1))
    return place


@pytest.mark.parametrize("name", ["notes.txt", "holiday", "a-folder/", LASTS, ".spares"])
def test_a_folder_with_other_things_in_it_is_refused(tmp_path, name):
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    path.parent.chmod(0o755)
    path.mkdir() if name.endswith("/") else path.write_text("precious")
    with pytest.raises(UnusableFolder, match=r"holds other things than payloads \('.*give one that is empty"):
        DirectoryPayloads(tmp_path / "folder", time.time)
    assert [it.name for it in path.parent.iterdir()] == [path.name]
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_a_fresh_file_system_is_an_empty_folder(tmp_path):
    (tmp_path / "lost+found").mkdir(mode=0o700)
    for _ in range(2):
        store = DirectoryPayloads(tmp_path, lambda: time.time() + 3600)
        put(store, OLD, [b"x"], -60)
        store.sweep()
        assert {it.name for it in tmp_path.iterdir()} == {"lost+found", ".spares"}


def test_only_files_that_it_made_are_ever_deleted(store, tmp_path, others, monkeypatch):
    monkeypatch.setattr(directory, "UNLOCKED_SECONDS", -1.0)
    monkeypatch.setattr(file_pool, "SECONDS", -60.0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    (tmp_path / OVER).symlink_to(elsewhere)
    (tmp_path / f"{OVER}.part").symlink_to(elsewhere)
    (tmp_path / SMALL).mkdir()
    others.rename(tmp_path / "folder")
    shutil.copytree(tmp_path / "folder", tmp_path / ".spares", dirs_exist_ok=True)
    for it in (tmp_path / "folder").iterdir():
        it.rename(tmp_path / it.name)
    (tmp_path / "folder").rmdir()
    before = set(tmp_path.rglob("*"))
    put(store, NEW, [b"x"], -60)
    store.sweep()
    assert set(tmp_path.rglob("*")) == before
    assert elsewhere.read_text() == "precious"


def test_what_is_no_payloads_name_is_not_deleted(store, tmp_path, others, caplog):
    put(store, OLD, [b"x"], 60)
    store.delete(["others/notes.txt", OLD, "../x"])
    assert (others / "notes.txt").exists()
    assert not (tmp_path / OLD).exists()
    assert "no payloads' names: ['../x', 'others/notes.txt']" in caplog.text


def test_no_link_leads_elsewhere(store, tmp_path):
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.write_bytes(b"e" * 5000)
    (tmp_path / OLD).symlink_to(elsewhere)
    (tmp_path / f"{NEW}.part").symlink_to(elsewhere)
    (tmp_path / ".spares" / f"5000-{OLD}-0").symlink_to(elsewhere)
    (tmp_path / ".spares" / f"5000-{OLD}-1").hardlink_to(elsewhere)
    with pytest.raises(PayloadGone):
        store.read(OLD, 0, 10)
    put(store, NEW, [b"n" * 5000], 60)
    put(store, OLD, [b"o" * 5000], 60)
    assert (store.read(NEW, 0, 2), store.read(OLD, 0, 2)) == (b"nn", b"oo")
    assert elsewhere.read_bytes() == b"e" * 5000
    store.delete([OLD])
    (tmp_path / OLD).symlink_to(elsewhere)
    store.delete([OLD])
    assert elsewhere.exists()


def test_a_folder_that_is_moved_away_stays_the_store_and_what_takes_its_path_is_left_alone(tmp_path, others):
    folder = tmp_path / "payloads"
    store = DirectoryPayloads(folder, time.time)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(others)
    before = set(others.rglob("*"))
    put(store, OVER, [b"x"], -60)
    put(store, OLD, [b"x"], 60)
    store.delete([LASTS])
    store.sweep()
    assert set(others.rglob("*")) == before
    assert {it.name for it in (tmp_path / "moved").iterdir()} == {".spares", OLD}


def test_a_folder_that_is_removed_is_made_again(store, tmp_path):
    reader = DirectoryPayloads(tmp_path, time.time)
    put(store, OLD, [b"x"], 60)
    shutil.rmtree(tmp_path)
    store.sweep()
    store.delete([OLD])
    with pytest.raises(PayloadGone):
        reader.read(OLD, 0, 1)
    put(store, NEW, [b"new"], 60)
    assert reader.read(NEW, 0, 3) == b"new"
    assert (tmp_path / NEW).exists()


@pytest.mark.parametrize("umask", [0, 0o022])
def test_the_folder_and_its_files_are_closed_to_others_whoever_made_them(tmp_path, umask, caplog):
    folder = tmp_path / "payloads"
    folder.mkdir()
    folder.chmod(0o755)
    before = os.umask(umask)
    try:
        store = DirectoryPayloads(folder, time.time)
        put(store, OLD, [b"x"], 60)
    finally:
        os.umask(before)
    assert "was open to other users (mode 755): it is 700 now" in caplog.text
    assert [it.stat().st_mode & 0o777 for it in (folder, folder / ".spares", folder / OLD)] == [0o700, 0o700, 0o600]


def test_folders_that_cannot_be_its_own_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    for name, why in (
        ("file", "is no folder"),
        ("file/inner", "cannot be used: Not a directory"),
        ("link", "is a symbolic link"),
        ("x" * 300, "cannot be used: File name too long"),
    ):
        with pytest.raises(UnusableFolder, match=f"{name} {why}.*; give "):
            DirectoryPayloads(tmp_path / name, time.time)
    with pytest.raises(UnusableFolder, match=r"(is for every user|belongs to another user)"):
        DirectoryPayloads(Path("/dev/shm"), time.time)
    if os.geteuid() == 0:
        (tmp_path / "another").mkdir()
        os.chown(tmp_path / "another", 12345, 12345)
        with pytest.raises(UnusableFolder, match="belongs to another user"):
            DirectoryPayloads(tmp_path / "another", time.time)


def test_what_a_killed_writer_left_is_deleted_while_what_is_being_written_stays(store, tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "UNLOCKED_SECONDS", -1.0)
    code = """if True:
        import os, signal, sys, time
        from pathlib import Path
        from convlens.jobs.payloads.directory import DirectoryPayloads
        store = DirectoryPayloads(Path(sys.argv[1]), time.time)
        store.put(sys.argv[2], [b"x" * 5000], 5000, 60, lambda: os.kill(os.getpid(), signal.SIGKILL))
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path), OLD], check=False)
    assert (tmp_path / f"{OLD}.part").exists()

    def swept_meanwhile():
        store.sweep()
        return b"end"

    assert put(store, NEW, [b"x"], 60, swept_meanwhile) == 4
    assert {it.name for it in tmp_path.iterdir()} == {NEW, ".spares"}


def test_a_payload_larger_than_may_be_written_is_refused_and_leaves_nothing(store, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StoreFull, match="File too large"):
            put(store, OLD, [b"x" * 20_000], 60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {it.name for it in tmp_path.iterdir()} == {".spares"}


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
    monkeypatch.setattr(directory, "MOUNTS", table)
    assert DirectoryPayloads(place / folder, time.time).waits == waits


def test_a_folder_that_takes_the_place_of_another_is_used_by_all(tmp_path):
    """As when it was moved away and a process that started later made it again."""
    folder = tmp_path / "payloads"
    server = DirectoryPayloads(folder, time.time)
    folder.rename(tmp_path / "moved")
    worker = DirectoryPayloads(folder, time.time)
    put(server, NEW, [b"images"], 60)
    assert worker.read(NEW, 0, 6) == b"images"
    put(worker, OLD, [b"result"], 60)
    assert server.read(OLD, 0, 6) == b"result"
