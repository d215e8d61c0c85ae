"""The command line: help, usage errors, and one clear line where a command fails."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner
from unresponsive_servers import refusing, silent

from convlens.client import ALL_UNITS, TopK, cli
from convlens.client.cli.explain import folder_names
from convlens.client.cli.parsing import parse_channels, parse_target, parse_value_range

COMMANDS = sorted(typer.main.get_command(cli.app).commands)
OTHERS = metadata.entry_points(group="convlens.commands").names - {"model"}
OURS = [name for name in COMMANDS if name not in OTHERS]


@pytest.fixture
def dead_address():
    """An address at which nothing listens, and which nothing else can bind during the test."""
    with refusing() as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def run(monkeypatch):
    for name in ("SERVER", "TOKEN", "TLS", "CA", "CERT", "KEY", "CONNECT_TIMEOUT"):
        monkeypatch.delenv(f"CONVLENS_{name}", raising=False)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nwhatever")
    return path


def test_help_lists_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    assert "What did this VGG16 look at?" in result.stdout
    for name in COMMANDS:
        assert name in result.stdout
    maps = {"saliency", "grad-cam", "occlusion", "activations", "visualize", "report"}
    assert maps | {"models", "model", "info", "jobs", "config"} == set(OURS)


@pytest.mark.parametrize("command", OURS)
def test_each_command_has_help(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"convlens {command}" in result.stdout or command in result.stdout
    assert result.stderr == ""


def test_the_version_is_printed(run):
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.strip() == f"convlens {metadata.version('convlens-client')}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grad-cam", "--target", "-1"], "'-1' is none; allowed: a class index or label, topN, all"),
        (["grad-cam", "--target", ""], "'' is none; allowed: a class index or label, topN, all"),
        (["saliency", "--target", " "], "' ' is none; allowed: a class index or label, topN, all"),
        (["visualize", "--channels", "a-b"], "'a-b' is none; allowed: such as 0-4,17"),
        (["activations", "--layer", "c1", "--channels", "a-b"], "'a-b' is none; allowed: such as 0-4,17"),
        (["activations", "--layer", "c1", "--channels", "1,-4"], "'-4' is none; allowed: such as 0-4,17"),
        (["activations", "--layer", "c1", "--channels", "4-0"], "'4-0' is none; allowed: such as 0-4,17"),
        (["activations"], "--layer"),
        (["saliency", "--method", "smooth"], "'smooth' is none; allowed: vanilla, guided"),
        (["grad-cam", "--method", "eigen"], "'eigen' is none; allowed: grad_cam, grad_cam_plus_plus"),
        (["saliency", "--sign", "plus"], "'plus' is not one of"),
        (["grad-cam", "--opacity", "1.5"], "equal to 1"),
        (["grad-cam", "--percentile", "0"], "equal to 0.1"),
        (["grad-cam", "--cmap", "rainbows"], "no colour map 'rainbows'"),
        (["grad-cam", "--colour", "red"], "No such option"),
        (["saliency", "--value-range", "0,2"], "'0,2' is none; allowed: 0,255, 0,1 and -1,1"),
        (["visualize", "--value-range", "unit"], "'unit' is none; allowed: 0,255, 0,1 and -1,1"),
        (["occlusion", "--value-range", "0,1,2"], "'0,1,2' is none; allowed: 0,255, 0,1 and -1,1"),
    ],
)
def test_a_wrong_argument_is_a_usage_error_that_says_what_is_allowed(run, photo, dead_address, arguments, message):
    result = run("--server", dead_address, "--timeout", "0.3", arguments[0], photo, *arguments[1:])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["paint"], ["saliency"], ["jobs", "show"], ["jobs", "list", "--limit", "0"]])
def test_a_missing_or_unknown_argument_is_a_usage_error(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["models"], ["info"], ["jobs", "list"], ["jobs", "show", "ab"], ["jobs", "cancel", "ab"], ["saliency", "PHOTO"],
     ["jobs", "watch", "ab"], ["jobs", "result", "ab"], ["jobs", "delete", "ab"], ["model", "show", "ab"],
     ["models", "--json"], ["jobs", "list", "--json"],
     ["visualize", "PHOTO", "PHOTO"]],
    ids=" ".join,
)  # fmt: skip
def test_without_a_server_there_is_one_clear_line_and_status_1(run, photo, dead_address, tmp_path, arguments):
    arguments = [photo if argument == "PHOTO" else argument for argument in arguments]
    result = run("--server", dead_address, "--timeout", "0.3", *arguments)
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: no Convlens server answers at {dead_address}")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timeout", "nan"], "timeout is nan; allowed: seconds above 0, math.inf for no limit"),
        (["--timeout", "0"], "timeout is 0"),
        (["--connect-timeout", "-1"], "connect_timeout is -1"),
    ],
)
def test_an_invalid_timeout_is_a_usage_error(run, dead_address, arguments, message):
    result = run("--server", dead_address, *arguments, "models")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", "").split())


def test_an_invalid_address_is_refused_in_one_line(run):
    result = run("--server", "https://localhost:50051", "models")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the server's address 'https://localhost:50051' begins with https://")
    assert "(--tls)" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("unresponsive", [refusing, silent])
def test_stderr_reports_the_wait_for_a_server_and_then_the_error(run, monkeypatch, unresponsive):
    monkeypatch.setenv("CONVLENS_CONNECT_TIMEOUT", "2.5")
    with unresponsive() as port:
        result = run("--server", f"127.0.0.1:{port}", "models")
    assert result.exit_code == 1
    *notes, error = result.stderr.splitlines()
    assert notes[0].startswith(f"convlens: no answer from 127.0.0.1:{port} yet")
    assert ("(connection refused)" in notes[0]) == (unresponsive is refusing)
    assert notes[0].endswith("; trying for 2.5 s")
    assert 1 <= len(notes) <= 2
    assert error.startswith(f"error: no Convlens server answers at 127.0.0.1:{port}, after 2")


def test_a_missing_photo_is_named_and_the_status_is_1(run, dead_address, tmp_path):
    result = run(
        "--server", dead_address, "--timeout", "0.3", "saliency", tmp_path / "gone.png", "-o", tmp_path / "out"
    )
    assert result.exit_code == 1
    assert "gone.png: [Errno 2] No such file or directory" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["saliency", "grad-cam", "occlusion", "visualize", "activations"])
def test_a_value_range_of_an_image_file_is_refused_by_every_command_of_maps(run, dead_address, photo, command):
    layer = ["--layer", "c1"] if command == "activations" else []
    result = run("--server", dead_address, "--timeout", "0.3", command, photo, "--value-range", "-1,1", *layer)
    assert result.exit_code == 1
    assert "value_range is for arrays of floats; an image file is always in 0…255" in result.stderr


def test_a_url_and_a_batch_are_refused_with_the_reason(run, dead_address, tmp_path):
    np.save(tmp_path / "batch.npy", np.full((2, 8, 8, 3), 9, np.uint8))
    result = run("--server", dead_address, "--timeout", "0.3", "saliency", "https://host/a.jpg", tmp_path / "batch.npy")
    assert result.exit_code == 1
    assert "is a URL, no path" in result.stderr
    assert "a batch is given by itself" in result.stderr


def test_an_unknown_state_is_refused_with_the_allowed_ones(run, dead_address):
    result = run("--server", dead_address, "--timeout", "0.3", "jobs", "list", "--state", "done")
    assert result.exit_code == 1
    assert "error: no state 'done'; allowed: queued, running, succeeded" in result.stderr


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (None, None),
        ("7", 7),
        ("top3", TopK(3)),
        ("all", ALL_UNITS),
        ("golden retriever", "golden retriever"),
        ("top", "top"),
    ],
)
def test_a_target_is_parsed(text, target):
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "value_range"), [("", None), ("0,1", (0, 1)), ("0:255", (0, 255)), ("-1,1", (-1, 1)), ("0, 1.0", (0, 1))]
)
def test_a_value_range_is_parsed(text, value_range):
    assert parse_value_range(text) == value_range


@pytest.mark.parametrize(
    ("text", "channels"), [("", None), ("3", [3]), ("0-4,17", [0, 1, 2, 3, 4, 17]), ("2-2,", [2]), ("5,1", [5, 1])]
)
def test_channels_are_parsed(text, channels):
    assert parse_channels(text) == channels


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.png", "b/y.jpg"], ["x", "y"]),
        (["x.png", "x.jpg"], ["x.png", "x.jpg"]),
        (["a/x.png", "b/x.png", "z.png"], ["x.png", "x.png-2", "z"]),
    ],
)
def test_each_image_has_a_folder_of_its_own(paths, names):
    assert folder_names([Path(path) for path in paths]) == names
