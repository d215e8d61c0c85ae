"""A peer's own environment, created where it is missing: .venv-peers/NAME from its requirements.txt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
FOLDER: Final = HERE.parents[1] / ".venv-peers"


class NoEnvironment(RuntimeError):
    """The environment could not be created; the message is pip's last line."""


def interpreter(name: str) -> Path:
    """Return the Python of the peer `name`, creating its environment where needed. Raises NoEnvironment."""
    requirements = (HERE / "peers" / name / "requirements.txt").read_text()
    folder = FOLDER / f"plane-{name}"
    marker = folder / "made"
    if not marker.exists() or marker.read_text() != requirements:
        print(f"creating an environment for {name}…", file=sys.stderr)
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(folder / "bin" / "pip"), "install", "-q", *requirements.split())
        marker.write_text(requirements)
    return folder / "bin" / "python"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoEnvironment((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
