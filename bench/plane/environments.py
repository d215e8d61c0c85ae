"""A peer's own environment, made where it is missing: .venv-peers/NAME from its requirements.txt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
FOLDER: Final = HERE.parents[1] / ".venv-peers"


class NoEnvironment(RuntimeError):
    """It could not be made; the message is pip's last line."""


def interpreter(name: str) -> Path:
    """The Python of the peer `name`. Raises NoEnvironment."""
    wanted = (HERE / "peers" / name / "requirements.txt").read_text()
    folder = FOLDER / f"plane-{name}"
    made = folder / "made"
    if not made.exists() or made.read_text() != wanted:
        print(f"making an environment for {name}…", file=sys.stderr)
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(folder / "bin" / "pip"), "install", "-q", *wanted.split())
        made.write_text(wanted)
    return folder / "bin" / "python"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoEnvironment((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
