"""docs/web.md: its curl commands work, its flags and calls are those there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from gateways import png

from convlens.web.app import create_app
from convlens.web.command import main
from convlens.web.settings import WebSettings

PAGE = (Path(__file__).parents[3] / "docs" / "web.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (curl .+)$", PAGE, re.MULTILINE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the commands need curl")
def test_the_commands_of_the_page_work_one_after_another(http, tmp_path):
    (tmp_path / "photo.png").write_bytes(png())
    job = ""
    assert len(COMMANDS) >= 9
    for command in COMMANDS:
        text = command.replace("http://127.0.0.1:8080", str(http.base_url).rstrip("/")).replace("JOB", job)
        shell = f"{text} --silent --show-error --fail-with-body"
        done = subprocess.run(shell, shell=True, cwd=tmp_path, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if match := re.match(rb'\{"id":"(\w+)"', done.stdout):
            job = match[1].decode()
    assert job
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "arrays.npz").read_bytes().startswith(b"PK")


def test_every_flag_is_on_the_page_with_its_variable():
    for option in main.command().params:
        if option.name != "help" and isinstance(option, typer.core.TyperOption):
            assert f"`{option.opts[0]}`" in PAGE
            assert str(option.envvar) in PAGE or option.name in {"ca", "cert", "key"}


def test_every_call_is_on_the_page():
    calls = {
        f"{method.upper()} {re.sub(r'{job_id}', 'ID', path).replace('{name}', 'NAME')}"
        for path, operations in create_app(WebSettings()).openapi()["paths"].items()
        for method in operations
    }
    listed = {call.partition("?")[0] for call in re.findall(r"^\| `([A-Z]+ /v1/[^`]+)`", PAGE, re.MULTILINE)}
    assert listed == calls
