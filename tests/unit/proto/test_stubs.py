"""The committed stubs are what their .proto files generate, and every declaration in those files has a comment."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "proto/convlens/v1"
DECLARED = re.compile(r"\s*(message|enum|service|rpc|oneof)\b|\s*(repeated |optional )?[\w.]+( \w+)? = \d+;")


def stubs(folder):
    return {path.name: path.read_text() for path in folder.glob("*_pb2*.py*") if path.suffix in {".py", ".pyi"}}


def test_the_committed_stubs_are_what_make_proto_generates(tmp_path):
    make = ["make", "-s", "proto", f"OUT={tmp_path}", f"PYTHON={sys.executable}"]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    generated, committed = stubs(tmp_path / "convlens/v1"), stubs(PACKAGE)
    assert generated.keys() == committed.keys()
    assert [name for name, text in committed.items() if generated[name] != text] == []
    assert all(f"{path.stem}_pb2.py" in committed for path in PACKAGE.glob("*.proto"))


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.proto")), ids=lambda path: path.name)
def test_every_message_field_value_service_and_call_has_a_comment(path):
    lines = path.read_text().splitlines()
    declared = [i for i, line in enumerate(lines) if DECLARED.match(line)]
    assert declared
    assert [lines[i].strip() for i in declared if not lines[i - 1].lstrip().startswith("// ")] == []
