"""Names of files and texts of servers are printed as they are: no markup, nothing that a terminal obeys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convlens.client.cli.terminal import visible

NAMES = ["[/x].png", "[red].png", "[bold]a[/bold].png", ":smile:.png", "[link=https://x]y.png", "\\[b].png", "a'b.png"]


def command(*arguments, cwd):
    """`convlens` as a process; what it printed."""
    env = os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "convlens.client", *arguments],
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
    stderr = done.stderr.decode()
    assert "Traceback" not in stderr
    assert visible(name) in stderr
    assert not set("\x1b\u202e") & set(stderr)


@pytest.mark.parametrize("arguments", [["grad-cam", "--method", "[/x]"], ["grad-cam", "--target", "-[/x]"], ["[/x]"]])
def test_a_wrong_argument_is_printed_whole(tmp_path, arguments):
    (tmp_path / "a.png").write_bytes(b"no image")
    done = command("--server", "127.0.0.1:1", arguments[0], "a.png", *arguments[1:], cwd=tmp_path)
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


def convlens(*arguments, cwd, **options):
    """The command in a process of its own, as a shell starts it."""
    return subprocess.run(
        [sys.executable, "-m", "convlens.client", *arguments],
        cwd=cwd, check=False, stderr=subprocess.PIPE, timeout=60, **options,
    )  # fmt: skip


def test_an_encoding_without_arrows_is_no_error():
    program = "from convlens.client.cli.terminal import line, out, err; line(out, 'a \\u2192 b'); line(err, '\\xe9')"
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("a \\u2192 b\n", "\\xe9\n")


def test_a_stdout_that_is_closed_or_full_is_no_traceback(tmp_path):
    closed = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m convlens.client --version >&-"], check=False, capture_output=True
    )
    assert (closed.returncode, closed.stderr) == (0, b"")
    with Path("/dev/full").open("wb") as full:
        done = convlens("--version", cwd=tmp_path, stdout=full)
    assert (done.returncode, done.stderr) == (1, b"error: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full"])
def test_a_device_is_no_image(tmp_path, device):
    done = convlens("saliency", device, cwd=tmp_path)
    assert done.returncode == 1
    assert f"{device}: this is a device; give a file" in done.stderr.decode()


def test_a_pipe_is_read_to_its_end_and_one_without_an_end_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for source, message in (("/dev/zero", "does not end within 256 MiB"), ("/dev/null", "the file is empty")):
        with subprocess.Popen(["sh", "-c", f"cat {source} > {pipe}"], stderr=subprocess.DEVNULL):
            assert message in convlens("saliency", str(pipe), cwd=tmp_path).stderr.decode()


@pytest.mark.parametrize("token", ["a\nb", "é", "a b", "a\n"])
def test_a_token_with_other_characters_is_refused_unseen(tmp_path, token):
    done = convlens("models", cwd=tmp_path, env=os.environ | {"CONVLENS_TOKEN": token})
    assert done.returncode == 1
    assert b"other characters than visible ASCII" in done.stderr
    assert b"field token" in done.stderr
    assert b"Traceback" not in done.stderr
