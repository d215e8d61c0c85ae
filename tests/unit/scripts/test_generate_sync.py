"""The synchronous client is what `scripts/generate_sync.py` generates from the asynchronous one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "scripts" / "generate_sync.py"


def test_the_generated_files_are_up_to_date(capsys):
    spec = importlib.util.spec_from_file_location("generate_sync", SCRIPT)
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.main(["--check"]) == 0
    assert capsys.readouterr().out == ""
