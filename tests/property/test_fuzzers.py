"""Each fuzzer of `make fuzz` accepts all of its seeds. Atheris is not needed here."""

from __future__ import annotations

import contextlib
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[1] / "fuzz"


@pytest.mark.parametrize("fuzzer", sorted(FOLDER.glob("fuzz_*.py")), ids=lambda path: path.stem)
def test_a_fuzzer_accepts_its_seeds(fuzzer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "atheris", SimpleNamespace(instrument_imports=contextlib.nullcontext))
    seeds = runpy.run_path(str(FOLDER / "seeds.py"))
    seeds["main"](fuzzer.stem.removeprefix("fuzz_"), tmp_path)
    fuzz_one = runpy.run_path(str(fuzzer))["fuzz_one"]
    files = list(tmp_path.iterdir())
    assert files
    for file in files:
        fuzz_one(file.read_bytes())
