"""File names and servers' texts are printed as text: markup and control codes have no effect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convlens.client.cli.terminal import visible

NAMES = ["[/x].png", "[red].png", "[bold]a[/bold].png", ":smile:.png", "[link=https://x]y.png", "\\[b].png", "a'b.png"]


ENVIRONMENT = os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


def convlens(*arguments, cwd, env=ENVIRONMENT, stdout=subprocess.PIPE):
    """Run the command in a process of its own, as a shell starts it."""
    command = [sys.executable, "-m", "convlens.client", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, check=False, stdout=stdout, stderr=subprocess.PIPE, timeout=60)


@pytest.mark.parametrize("name", [*NAMES, "a\x1b[31mb.png", "a\nb.png", "a\u202eb.png", os.fsdecode(b"\xff\xfe.png")])
def test_any_file_name_is_printed_whole(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    name = str(Path(name))
    (tmp_path / name).write_bytes(b"no image")
    done = convlens("--server", "127.0.0.1:1", "grad-cam", name, cwd=tmp_path)
    assert done.returncode == 1
    stderr = done.stderr.decode()
    assert "Traceback" not in stderr
    assert visible(name) in stderr
    assert not set("\x1b\u202e") & set(stderr)


@pytest.mark.parametrize("arguments", [["grad-cam", "--method", "[/x]"], ["grad-cam", "--target", "-[/x]"], ["[/x]"]])
def test_a_wrong_argument_is_printed_whole(tmp_path, arguments):
    (tmp_path / "a.png").write_bytes(b"no image")
    done = convlens("--server", "127.0.0.1:1", arguments[0], "a.png", *arguments[1:], cwd=tmp_path)
    assert done.returncode == 2
    assert b"[/x]" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("server", ["[/x]:1", "[red]host", "a\x1b[2Jb:1"])
def test_a_servers_address_is_printed_whole(tmp_path, server):
    done = convlens("--server", server, "--connect-timeout", "0.2", "models", cwd=tmp_path)
    assert done.returncode in {1, 2}
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stderr


def test_visible_characters_are_unchanged_and_control_characters_escaped():
    for text in ("Zwölf große Hühner", "犬\u3000猫", "👩\u200d🔬", "a b\u00a0c", "مرحبا"):
        assert visible(text) == text
    assert visible("a\tb\r\n\x07\x9b\u2028") == r"a\tb\r\n\x07\x9b\u2028"


def test_characters_that_the_encoding_lacks_are_escaped():
    program = "from convlens.client.cli.terminal import line, out, err; line(out, 'a \\u2192 b'); line(err, '\\xe9')"
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("a \\u2192 b\n", "\\xe9\n")


def test_a_closed_or_full_stdout_causes_no_traceback(tmp_path):
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
def test_a_token_with_other_characters_than_visible_ascii_is_refused(tmp_path, token):
    done = convlens("models", cwd=tmp_path, env=ENVIRONMENT | {"CONVLENS_TOKEN": token})
    assert done.returncode == 1
    assert b"other characters than visible ASCII" in done.stderr
    assert b"field token" in done.stderr
    assert b"Traceback" not in done.stderr
