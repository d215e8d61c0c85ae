"""Known vulnerabilities of the versions in a constraints file, asked of the advisory service: `make audit`.

Exits with 1 on findings, and with 0 when there are none or when the service could not be asked, which is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

UNREACHABLE: Final = ("ConnectionError", "Could not connect", "Timeout", "ProxyError", "SSLError")
"""How pip-audit ends where there is no way to the service."""


def main(constraints: str) -> int:
    """Audits, tells, and returns the exit status."""
    command = [sys.executable, "-m", "pip_audit", "-r", constraints]
    options = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    status, lines = verdict(done.stdout, done.stderr)
    print("\n".join(lines), file=sys.stderr if status else sys.stdout)
    return status


def verdict(report: str, errors: str) -> tuple[int, list[str]]:
    """The exit status, and what to say, of pip-audit's JSON and what it wrote to stderr."""
    try:
        found: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except ValueError:
        last = (errors.strip() or "pip-audit said nothing").splitlines()[-1]
        if any(sign in errors for sign in UNREACHABLE):
            return 0, [f"not audited, the advisory service could not be reached: {last}"]
        return 2, [f"not audited: {last}"]
    skipped = [it["name"] for it in found if "skip_reason" in it]
    if len(skipped) == len(found):
        return 0, [f"not audited, the advisory service answered for none of {len(found)} packages"]
    bad = [(it, vulnerability) for it in found for vulnerability in it.get("vulns", ())]
    lines = [
        f"{it['name']} {it['version']}: {vulnerability['id']}, fixed in {vulnerability['fix_versions'] or 'none yet'}"
        for it, vulnerability in bad
    ]
    lines.append(f"{len(found) - len(skipped)} packages audited, {len(bad)} known vulnerabilities")
    if skipped:
        lines.append(f"not known to the advisory service: {', '.join(skipped)}")
    return int(bool(bad)), lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
