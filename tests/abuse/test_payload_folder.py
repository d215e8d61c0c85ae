"""A payload folder keeps foreign files, and a full one makes space by dropping cached results."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import running, until
from resource_usage import MIB, BackgroundCaller

from convlens.client import Client, GradCAM, Overloaded, Saliency
from convlens.jobs.payloads.directory import DirectoryPayloads
from convlens.jobs.payloads.store import StoreFull

SIZE = 8 * MIB
"""Size of the small file system in bytes."""
KILLED_WRITER = """if True:
    import os, signal, sys, time
    from pathlib import Path
    from convlens.jobs.payloads.directory import DirectoryPayloads
    store = DirectoryPayloads(Path(sys.argv[1]), time.time)
    os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    store.put("f" * 32, [bytes(int(sys.argv[2]))], 60)
"""


def start_and_fail(module, folder, url):
    """Start a server or worker on an unusable payload folder and return its exit status and log."""
    env = os.environ | {"CONVLENS_REDIS_URL": url, "CONVLENS_PAYLOAD_DIR": str(folder)}
    flags = ["--model", "null=null"] if module == "convlens.worker" else ["--port", "0"]
    process = subprocess.run(
        [sys.executable, "-m", module, *flags], env=env, check=False, capture_output=True, text=True, timeout=30
    )
    return process.returncode, process.stderr


@pytest.mark.parametrize("module", ["convlens.server", "convlens.worker"])
def test_a_folder_with_foreign_files_is_refused_with_a_message(tmp_path, own_valkey, module):
    (tmp_path / "thesis.tex").write_text("precious")
    (tmp_path / "data").mkdir()
    status, log = start_and_fail(module, tmp_path, f"redis://127.0.0.1:{own_valkey.port}/0")
    assert status == 1
    assert "holds other things than payloads ('data', 'thesis.tex'), and payloads need a folder of their own" in log
    assert "Traceback" not in log
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", "data"}


def test_foreign_files_in_a_folder_in_use_stay_and_disturb_nothing(tmp_path, own_valkey):
    folder, elsewhere = tmp_path / "payloads", tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    os.utime(elsewhere, (1, 1))
    with running(tmp_path, own_valkey, payload_dir=folder, result_ttl=1) as service:
        service.worker("null=null")
        _, target = service.server()
        with Client(target, timeout=30) as client:
            until(client.models)
            (folder / "lost+found").mkdir()
            (folder / "holiday").write_text("precious")
            (folder / "photo.jpg").write_text("precious")
            (folder / "0123456789abcdef0123456789abcdef").symlink_to(elsewhere)
            (folder / ".spares" / "mine").write_text("precious")
            (folder / ".spares" / f"7-{'0' * 32}-1").symlink_to(elsewhere)
            for path in (folder / "holiday", folder / "photo.jpg", folder / ".spares" / "mine"):
                os.utime(path, (1, 1))
            foreign = set(folder.rglob("*"))
            job = client.submit(np.zeros((224, 224, 3), np.uint8), [GradCAM()])
            assert job.result()["grad_cam"].shape == (1, 14, 14)
            until(lambda: set(folder.iterdir()) <= foreign, 20)  # the result has expired and was deleted
            deleted = foreign - set(folder.rglob("*"))
            assert deleted <= {path for path in foreign if path.parent.name == ".spares"}
            assert (folder / ".spares" / "mine").read_text() == elsewhere.read_text() == "precious"
            assert client.grad_cam(np.ones((224, 224, 3), np.uint8))["grad_cam"].shape == (1, 14, 14)


@contextlib.contextmanager
def small_file_system(folder, options):
    """Mount a tmpfs at `folder`, or skip the test where this user may not."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs root: a full file system is a small one that is mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def photos(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


def submit_until_full(target):
    """Submit jobs, whose results are kept, until the folder is full, and return their ids."""
    job_ids = []
    with Client(target, timeout=2) as client:
        for photo in photos(150, seed=2):
            try:
                job = client.submit(photo, [Saliency()])
                job.result()
            except Overloaded:
                return job_ids
            job_ids.append(job.id)
    raise AssertionError("the folder is never full")


@pytest.mark.parametrize("options", [f"size={SIZE}", "size=256m,nr_inodes=80"])
def test_a_full_folder_drops_partial_files_and_cached_results(tmp_path, own_valkey, scale, options):
    with (
        small_file_system(tmp_path / "payloads", options) as folder,
        running(tmp_path, own_valkey, payload_dir=folder, reconcile_interval=3600) as service,  # no reconciler
    ):
        subprocess.run([sys.executable, "-c", KILLED_WRITER, str(folder), str(SIZE // 2)], check=False)
        (part,) = folder.glob("*.part")
        service.worker("null=null")
        _, target = service.server()
        with Client(target, timeout=10) as client:
            until(client.models)
            with BackgroundCaller(target) as ordinary_caller:
                for photo in photos(120 * scale, seed=1):  # 200 KB a result: several times the folder
                    client.visualize(photo, [Saliency()])
            assert not ordinary_caller.errors
            assert ordinary_caller.slowest < 2  # 1 s on an idle machine
            more = iter(photos(1000, seed=4))
            until(lambda: client.visualize(next(more), [Saliency()]) and not part.exists(), 10)

            # kept results are not dropped: new jobs are refused until some are deleted
            jobs = [client.job(job_id) for job_id in submit_until_full(target)]
            assert len(jobs) > 10
            assert all(job.result()["saliency"].shape == (1, 224, 224) for job in jobs)
            for job in jobs:
                job.delete()
            until(lambda: client.visualize(photos(1, seed=3)[0], [Saliency()]), 10)


def test_a_writer_with_nothing_to_evict_waits_for_another_process_eviction(tmp_path):
    is_evicting = threading.Event()
    with small_file_system(tmp_path / "payloads", f"size={SIZE}") as folder, ThreadPoolExecutor(1) as pool:
        cached = ["c" * 32]

        def evict(_size):  # as with Redis: the names go at once, and the caller deletes the files
            names = cached[:]
            cached.clear()
            is_evicting.set()
            time.sleep(0.3 if names else 0)
            return names

        first, second = (DirectoryPayloads(folder, time.time, evict) for _ in range(2))
        first.put("c" * 32, [bytes(SIZE - MIB)], 60)
        write = pool.submit(first.put, "1" * 32, [bytes(2 * MIB)], 60)
        assert is_evicting.wait(10)
        assert second.put("2" * 32, [bytes(2 * MIB)], 60) == write.result(10) == 2 * MIB
        with pytest.raises(StoreFull):
            second.put("3" * 32, [bytes(SIZE)], 60)
