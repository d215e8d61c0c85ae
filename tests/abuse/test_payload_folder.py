"""The payload folder: what is not the service's own in it survives, and a full one goes on with what can be dropped."""

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
"""Of the small file system."""
KILLED_WRITER = """if True:
    import os, signal, sys, time
    from pathlib import Path
    from convlens.jobs.payloads.directory import DirectoryPayloads
    store = DirectoryPayloads(Path(sys.argv[1]), time.time)
    os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    store.put("f" * 32, [bytes(int(sys.argv[2]))], 60)
"""


def started(module, folder, url):
    """A server's or worker's exit status and log, where it is to refuse its payload folder."""
    env = os.environ | {"CONVLENS_REDIS_URL": url, "CONVLENS_PAYLOAD_DIR": str(folder)}
    flags = ["--model", "null=null"] if module == "convlens.worker" else ["--port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", module, *flags], env=env, check=False, capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("module", ["convlens.server", "convlens.worker"])
def test_a_folder_with_other_things_in_it_is_refused_with_a_sentence(tmp_path, own_valkey, module):
    (tmp_path / "thesis.tex").write_text("precious")
    (tmp_path / "data").mkdir()
    status, log = started(module, tmp_path, f"redis://127.0.0.1:{own_valkey.port}/0")
    assert status == 1
    assert "holds other things than payloads ('data', 'thesis.tex'), and payloads need a folder of their own" in log
    assert "Traceback" not in log
    assert {it.name for it in tmp_path.iterdir()} == {"thesis.tex", "data"}


def test_what_others_put_into_the_folder_stays_and_stops_nothing(tmp_path, own_valkey):
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
            for it in (folder / "holiday", folder / "photo.jpg", folder / ".spares" / "mine"):
                os.utime(it, (1, 1))
            theirs = set(folder.rglob("*"))
            job = client.submit(np.zeros((224, 224, 3), np.uint8), [GradCAM()])
            assert job.result()["grad_cam"].shape == (1, 14, 14)
            until(lambda: set(folder.iterdir()) <= theirs, 20)  # the result has expired and was swept
            assert theirs - set(folder.rglob("*")) <= {it for it in theirs if it.parent.name == ".spares"}
            assert (folder / ".spares" / "mine").read_text() == elsewhere.read_text() == "precious"
            assert client.grad_cam(np.ones((224, 224, 3), np.uint8))["grad_cam"].shape == (1, 14, 14)


@contextlib.contextmanager
def small_file_system(folder, options):
    """A tmpfs at `folder`, where this user may mount one."""
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


def kept_until_full(target):
    """The ids of jobs whose results were asked to be kept, as many as there is room for."""
    kept = []
    with Client(target, timeout=2) as impatient:
        for photo in photos(150, seed=2):
            try:
                job = impatient.submit(photo, [Saliency()])
                job.result()
            except Overloaded:
                return kept
            kept.append(job.id)
    raise AssertionError("the folder is never full")


@pytest.mark.parametrize("options", [f"size={SIZE}", "size=256m,nr_inodes=80"])
def test_in_a_full_folder_leftovers_and_cached_results_go_and_work_goes_on(tmp_path, own_valkey, scale, options):
    with (
        small_file_system(tmp_path / "payloads", options) as folder,
        running(tmp_path, own_valkey, payload_dir=folder, reconcile_interval=3600) as service,  # nobody sweeps
    ):
        subprocess.run([sys.executable, "-c", KILLED_WRITER, str(folder), str(SIZE // 2)], check=False)
        (part,) = folder.glob("*.part")
        service.worker("null=null")
        _, target = service.server()
        with Client(target, timeout=10) as client:
            until(client.models)
            with BackgroundCaller(target) as neighbour:
                for photo in photos(120 * scale, seed=1):  # 200 KB a result: several times what there is room for
                    client.visualize(photo, [Saliency()])
            assert not neighbour.errors
            assert neighbour.slowest < 2  # a second where nothing else runs
            more = iter(photos(1000, seed=4))
            until(lambda: client.visualize(next(more), [Saliency()]) and not part.exists(), 10)

            # what somebody asked to keep is not dropped: new work is refused at last, and goes on when it is deleted
            kept = kept_until_full(target)
            jobs = [client.job(it) for it in kept]
            assert len(jobs) > 10
            assert all(job.result()["saliency"].shape == (1, 224, 224) for job in jobs)
            for job in jobs:
                job.delete()
            until(lambda: client.visualize(photos(1, seed=3)[0], [Saliency()]), 10)


def test_who_finds_nothing_to_drop_waits_for_what_another_process_is_dropping(tmp_path):
    dropped = threading.Event()
    with small_file_system(tmp_path / "payloads", f"size={SIZE}") as folder, ThreadPoolExecutor(1) as pool:
        cached = ["c" * 32]

        def evict(_size):  # as in Redis: forgotten at once, deleted by the caller
            names = cached[:]
            cached.clear()
            dropped.set()
            time.sleep(0.3 if names else 0)
            return names

        one, another = (DirectoryPayloads(folder, time.time, evict) for _ in range(2))
        one.put("c" * 32, [bytes(SIZE - MIB)], 60)
        first = pool.submit(one.put, "1" * 32, [bytes(2 * MIB)], 60)
        assert dropped.wait(10)
        assert another.put("2" * 32, [bytes(2 * MIB)], 60) == first.result(10) == 2 * MIB
        with pytest.raises(StoreFull):
            another.put("3" * 32, [bytes(SIZE)], 60)
