"""The SDK's types: correct uses pass mypy --strict and pyright, and each mistake is rejected."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = [ROOT / "tests" / "typing" / name for name in ("accepted.py", "rejected.py")]


def mypy(folder):
    """Run mypy and return the file and line of each error."""
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11", "--config-file", os.devnull]
    options = ["--explicit-package-bases", "--cache-dir", folder, "--hide-error-context", "--no-pretty", *FILES]
    environment = os.environ | {"MYPYPATH": os.pathsep.join(str(ROOT / part) for part in ("proto", "client"))}
    done = subprocess.run([*command, *options], env=environment, check=False, capture_output=True, text=True)
    errors = re.findall(r"^(.+?):(\d+): error: ", done.stdout, re.MULTILINE)
    return {(Path(path).name, int(line)) for path, line in errors if Path(path).parent.name == "typing"}


def pyright(folder):
    """Run pyright and return the file and line of each error."""
    if find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed")
    settings = {
        "include": [str(path) for path in FILES],
        "extraPaths": [str(ROOT / part) for part in ("proto", "client")],
        "typeCheckingMode": "standard",
        "reportUnusedCoroutine": False,
        "pythonVersion": "3.11",
        "venvPath": str(Path(sys.prefix).parent),
        "venv": Path(sys.prefix).name,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", folder]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return {
        (Path(diagnostic["file"]).name, diagnostic["range"]["start"]["line"] + 1)
        for diagnostic in json.loads(done.stdout)["generalDiagnostics"]
        if diagnostic["severity"] == "error"
    }


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_correct_uses_pass_and_each_mistake_is_rejected(checker, tmp_path):
    expected = {
        (path.name, number)
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.endswith("# rejected")
    }
    assert len(expected) > 30
    assert checker(tmp_path) == expected
