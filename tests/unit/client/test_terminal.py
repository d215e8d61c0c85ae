"""Names of files and texts of servers are printed as they are: no markup, nothing that a terminal obeys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convlens.client.terminal import visible

NAMES = ["[/x].png", "[red].png", "[bold]a[/bold].png", ":smile:.png", "[link=https://x]y.png", "\\[b].png", "a'b.png"]


def command(*words, cwd):
    """`convlens` as a process; what it printed."""
    env = os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "convlens.client", *words],
        env=env,
        cwd=cwd,
        check=False,
        capture_output=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", [*NAMES, "a\x1b[31mb.png", "a\nb.png", "a\u202eb.png", os.fsdecode(b"\xff\xfe.png")])
def test_a_files_name_is_printed_whole_whatever_is_in_it(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    name = str(Path(name))
    (tmp_path / name).write_bytes(b"no image")
    done = command("--server", "127.0.0.1:1", "grad-cam", name, cwd=tmp_path)
    assert done.returncode == 1
    told = done.stderr.decode()
    assert "Traceback" not in told
    assert visible(name) in told
    assert not set("\x1b\u202e") & set(told)


@pytest.mark.parametrize("words", [["grad-cam", "--method", "[/x]"], ["grad-cam", "--target", "-[/x]"], ["[/x]"]])
def test_a_wrong_word_is_printed_whole(tmp_path, words):
    (tmp_path / "a.png").write_bytes(b"no image")
    done = command("--server", "127.0.0.1:1", words[0], "a.png", *words[1:], cwd=tmp_path)
    assert done.returncode == 2
    assert b"[/x]" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("server", ["[/x]:1", "[red]host", "a\x1b[2Jb:1"])
def test_a_servers_address_is_printed_whole(tmp_path, server):
    done = command("--server", server, "--connect-timeout", "0.2", "models", cwd=tmp_path)
    assert done.returncode in {1, 2}
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stderr


def test_what_is_visible_stays():
    for text in ("Zwölf große Hühner", "犬\u3000猫", "👩\u200d🔬", "a b\u00a0c", "مرحبا"):
        assert visible(text) == text
    assert visible("a\tb\r\n\x07\x9b\u2028") == r"a\tb\r\n\x07\x9b\u2028"
