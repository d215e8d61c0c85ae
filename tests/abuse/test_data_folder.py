"""A data folder serves one `convlens up` at a time, is private to its user, and survives a killed `convlens up`."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from processes import until

from convlens.client import Client, GradCAM
from convlens.jobs.payloads.own_folder import UnusableFolder
from convlens.jobs.runtime.command_line import read_settings
from convlens.local.folders import open_folders
from convlens.local.settings import UpSettings
from convlens.local.valkey import prepare_command

SLOW = "null=null,device_ms=20+0"
IMAGE = np.zeros((224, 224, 3), np.uint8)


class Up:
    """`convlens up` on the data folder of a test, with temporary files beside it."""

    def __init__(self, folder) -> None:
        self.data, self.temporary, self._log = folder / "data", folder / "temporary", folder / "log"
        command = [sys.executable, "-m", "convlens.local.up", "--port", "0", "--model", SLOW, "--max-batch-size", "1"]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.data)], stdout=subprocess.PIPE, stderr=log, text=True, umask=0,
                env=os.environ | {"TMPDIR": str(self.temporary)},
            )  # fmt: skip

    def target(self) -> str:
        """Wait until it serves and return its target."""
        line = self.process.stdout.readline()
        assert line.startswith("ready: grpc "), self._log.read_text()
        return line.split()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder that was used before and is open to all users, and a folder for temporary files."""
    folder = tmp_path_factory.mktemp("up")
    (folder / "temporary").mkdir()
    files = folder / "data" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.1.incr.aof").write_bytes(b"")
    (files / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    lock = folder / "data" / "up.lock"
    lock.touch()
    for path in (*files.iterdir(), files, lock, files.parent):
        path.chmod(0o777)
    return folder


def test_a_data_folder_is_locked_made_private_and_reused_after_a_kill(folder, scale):
    first = Up(folder)
    try:
        with Client(first.target(), timeout=60) as client:
            until(client.models)
            jobs = [client.submit(IMAGE + i % 200, [GradCAM()], fresh=True) for i in range(80 * scale)]
            second = Up(folder)
            assert second.process.wait(30) == 1
            assert second.process.stdout.read() == ""
            log = (folder / "log").read_text()
            refusal = rf"data is in use by another convlens up \(process {first.process.pid}\).*give another --data-dir"
            assert re.search(refusal, log)
            assert all(job.result()["grad_cam"].shape == (1, 14, 14) for job in jobs)
        paths = [path for path in (folder / "data").rglob("*") if not path.is_symlink()]
        assert not [path for path in paths if path.stat().st_mode & 0o077]
        assert (folder / "data").stat().st_mode & 0o777 == 0o700
        assert "data was open to other users (mode 777): it is 700 now" in log
        assert len(list((folder / "temporary").iterdir())) == 1
    finally:
        first.process.kill()
    first.process.wait()
    (folder / "data" / "temp-rewriteaof-bg-12345.aof").write_bytes(b"unfinished")

    third = Up(folder)  # at once, while children of the first may still be ending
    try:
        with Client(third.target(), timeout=60) as client:
            assert all(client.job(job.id).result()["grad_cam"].shape == (1, 14, 14) for job in jobs)
        assert not (folder / "data" / "temp-rewriteaof-bg-12345.aof").exists()
        assert len(list((folder / "temporary").iterdir())) == 1
    finally:
        third.process.terminate()
    assert third.process.wait(60) == 0
    assert not list((folder / "temporary").iterdir())


FOREIGN_CONTENT = {
    "a thesis": {"thesis.tex": "all of it"},
    "a folder": {"sub": None},
    "a hidden file": {".bashrc": ""},
    "another Valkey's configuration": {"valkey.conf": "port 6379\n"},
    "another Valkey": {"valkey.conf": "requirepass a\nport 6379\n", "appendonlydir": None},
    "a snapshot beside others": {"temp-1.rdb": "mine", "notes": "mine"},
    "a configuration that is a folder": {"up.lock": "1\n", "valkey.conf": None},
    "a configuration that is a link": {"up.lock": "1\n", "valkey.conf": "-> /etc/hostname"},
    "a configuration that is a pipe": {"up.lock": "1\n", "valkey.conf": "|"},
}


@pytest.mark.parametrize("content", FOREIGN_CONTENT.values(), ids=FOREIGN_CONTENT)
def test_a_folder_with_foreign_files_is_refused_and_left_unchanged(tmp_path, content):
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    for name, text in content.items():
        match text:
            case None:
                (data / name).mkdir()
            case "|":
                os.mkfifo(data / name)
            case str() if text.startswith("-> "):
                (data / name).symlink_to(text[3:])
            case _:
                (data / name).write_text(text)

    def snapshot():
        paths = [data, *data.rglob("*")]
        return sorted((path.name, path.lstat().st_mode, path.lstat().st_mtime_ns) for path in paths)

    before = snapshot()
    with (
        pytest.raises(UnusableFolder, match="give a --data-dir that is empty") as caught,
        open_folders(read_settings(UpSettings, "up", ["--data-dir", str(data)])),
    ):
        pass
    assert str(data) in str(caught.value)
    assert snapshot() == before


@pytest.mark.parametrize("names", [[], ["lost+found"]], ids=str)
def test_a_folder_that_is_empty_is_used(tmp_path, names):
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
    settings = read_settings(UpSettings, "up", ["--data-dir", str(tmp_path / "data")])
    for _ in range(2):
        with open_folders(settings) as folders:
            prepare_command(folders.data, 1, "ab12")
            (tmp_path / "data" / "note").touch()  # a foreign file is allowed in a folder already in use
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
