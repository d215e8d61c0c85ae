"""Generate the synchronous client from the asynchronous one; with --check only say whether it is up to date.

client/convlens/client/_async is written by hand, _sync is made of it by replacing words: `await`, `async for` and the
like go, AsyncClient becomes Client. What differs by more than words is written twice by hand, behind the same names:
async_transport.py and sync_transport.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = ROOT / "client" / "convlens" / "client"
HEADER: Final = "# Generated from _async/{} by scripts/generate_sync.py; do not edit.\n"
REPLACEMENTS: Final = (
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b__a(iter|next|enter|exit)__\b", r"__\1__"),
    (r"\banext\(", "next("),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b_async\b", "_sync"),
    (r"\basync_transport\b", "sync_transport"),
)


def main(arguments: list[str]) -> int:
    """Write or check the generated files, and return the exit status."""
    stale = []
    for source in sorted((PACKAGE / "_async").glob("*.py")):
        target = PACKAGE / "_sync" / source.name
        generated = generate(source)
        if not target.exists() or target.read_text() != generated:
            stale.append(target)
            if "--check" not in arguments:
                target.write_text(generated)
    for target in stale:
        print(f"{target.relative_to(ROOT)}: {'is out of date; run make sync' if '--check' in arguments else 'written'}")
    return int("--check" in arguments and bool(stale))


def generate(source: Path) -> str:
    """Return the synchronous form of a file of _async, formatted."""
    code = source.read_text()
    for pattern, replacement in REPLACEMENTS:
        code = re.sub(pattern, replacement, code)
    name = str(PACKAGE / "_sync" / source.name)
    for command in (["check", "--select", "I", "--fix-only", "--quiet"], ["format", "--quiet"]):
        ruff = [Path(sys.executable).with_name("ruff"), *command, "--stdin-filename", name, "-"]
        code = subprocess.run(ruff, input=code, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return HEADER.format(source.name) + code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
