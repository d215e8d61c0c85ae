"""A data folder is used by one `convlens up` at a time, is closed to others, and a killed one leaves nothing behind."""

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
from convlens.local.folders import open_folders
from convlens.local.settings import UpSettings
from convlens.local.valkey import prepare_command

SLOW = "null=null,device_ms=20+0"
IMAGE = np.zeros((224, 224, 3), np.uint8)


class Up:
    """`convlens up` on a data folder, with temporary files in a folder of the test's."""

    def __init__(self, folder) -> None:
        self.data, self.temporary, self._log = folder / "data", folder / "temporary", folder / "log"
        command = [sys.executable, "-m", "convlens.local.up", "--port", "0", "--model", SLOW, "--max-batch-size", "1"]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.data)], stdout=subprocess.PIPE, stderr=log, text=True, umask=0,
                env=os.environ | {"TMPDIR": str(self.temporary)},
            )  # fmt: skip

    def target(self) -> str:
        """Where it serves, once it does."""
        line = self.process.stdout.readline()
        assert line.startswith("ready: grpc "), self._log.read_text()
        return line.split()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for data, open to all, as an earlier version may have left it; and one for temporary files."""
    folder = tmp_path_factory.mktemp("up")
    (folder / "temporary").mkdir()
    files = folder / "data" / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.1.incr.aof").write_bytes(b"")
    (files / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    for it in (*files.iterdir(), files, files.parent):
        it.chmod(0o777)
    return folder


def test_one_at_a_time_closed_to_others_and_taken_over_from_one_that_was_killed(folder, scale):
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
        open_to_others = [
            it for it in (folder / "data").rglob("*") if it.stat().st_mode & 0o077 and not it.is_symlink()
        ]
        assert not open_to_others
        assert (folder / "data").stat().st_mode & 0o777 == 0o700
        assert "data was open to other users (mode 777): it is 700 now" in log
        assert len(list((folder / "temporary").iterdir())) == 1
    finally:
        first.process.kill()
    first.process.wait()
    (folder / "data" / "temp-rewriteaof-bg-12345.aof").write_bytes(b"unfinished")

    third = Up(folder)  # at once: what the first has started may still be dying
    try:
        with Client(third.target(), timeout=60) as client:
            assert all(client.job(job.id).result()["grad_cam"].shape == (1, 14, 14) for job in jobs)
        assert not (folder / "data" / "temp-rewriteaof-bg-12345.aof").exists()
        assert len(list((folder / "temporary").iterdir())) == 1
    finally:
        third.process.terminate()
    assert third.process.wait(60) == 0
    assert not list((folder / "temporary").iterdir())


FOREIGN = {
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


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_with_other_things_is_refused_in_a_sentence_and_left_as_it_is(tmp_path, content):
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

    def seen():
        return sorted((it.name, it.lstat().st_mode, it.lstat().st_mtime_ns) for it in (data, *data.rglob("*")))

    before = seen()
    with (
        pytest.raises(UnusableFolder, match="give a --data-dir that is empty") as caught,
        open_folders(UpSettings.from_command_line("up", ["--data-dir", str(data)])),
    ):
        pass
    assert str(data) in str(caught.value)
    assert seen() == before


@pytest.mark.parametrize(
    "names", [[], ["lost+found"], ["appendonlydir", "payloads"], ["appendonlydir", "temp-rewriteaof-1.aof"]], ids=str
)
def test_a_folder_that_is_empty_or_of_an_earlier_version_is_used(tmp_path, names):
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
    settings = UpSettings.from_command_line("up", ["--data-dir", str(tmp_path / "data")])
    for _ in range(2):
        with open_folders(settings) as places:
            prepare_command(places.data, 1, "ab12")
            (tmp_path / "data" / "note").touch()  # in a folder in use nobody minds
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
