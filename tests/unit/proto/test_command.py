"""The `convlens` command without the client's command line, and optional packages that are absent."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest

from convlens.v1 import checksum, tensors


def run_without(*modules, code):
    hidden = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
    command = [sys.executable, "-c", hidden + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def run(*arguments):
    code = f"sys.argv[1:] = {list(arguments)!r}; from convlens import command; sys.exit(command.main())"
    return run_without("typer", "rich", code=code)


def test_a_command_of_another_distribution_runs_without_the_client():
    code = (
        "sys.argv[1:] = ['token', 'new', '--help']; from convlens import command; "
        "command._client_command_line = lambda: None; sys.exit(command.main())"
    )
    done = run_without("convlens.client", code=code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: convlens token new" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_what_is_installed_and_what_can_be(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "convlens server --help" in done.stdout
    assert 'pip install "convlens-client[cli]"' in done.stdout


def test_a_missing_command_is_answered_by_what_to_install():
    done = run("visualize", "photo.jpg")
    assert done.returncode == 2
    assert done.stderr == '`convlens visualize` is not installed here: pip install "convlens-client[cli]"\n'
    assert done.stdout == ""


def test_the_version_is_printed_without_the_client():
    assert run("--version").stdout.startswith("convlens 0.")


def test_the_clients_command_line_says_what_it_needs():
    done = run_without("typer", code="from convlens.client.__main__ import main; main()")
    assert done.returncode == 1
    assert done.stderr == 'the command line is not installed here: pip install "convlens-client[cli]"\n'


def test_the_checksum_is_the_same_without_zlib_ng():
    data = np.arange(100_000, dtype=np.float32)
    code = (
        "import numpy, zlib; from convlens.v1 import checksum, tensors; assert checksum.crc32 is zlib.crc32\n"
        "print(tensors.describe(numpy.arange(100_000, dtype=numpy.float32), 'map').crc32)"
    )
    done = run_without("zlib_ng", code=code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == tensors.describe(data, "map").crc32 == zlib.crc32(data.tobytes())
    assert checksum.crc32(data[:7].tobytes(), 5) == zlib.crc32(data[:7].tobytes(), 5)
