"""`make audit`: look up known vulnerabilities of the versions in a constraints file in the advisory service.

Exits with 1 on findings, and with 0 when there are none or when the service could not be reached, which is printed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

UNREACHABLE: Final = ("ConnectionError", "Could not connect", "Timeout", "ProxyError", "SSLError")
"""Texts in pip-audit's output when the service cannot be reached."""


def main(constraints: str) -> int:
    """Audit, print the findings, and return the exit status."""
    command = [sys.executable, "-m", "pip_audit", "-r", constraints]
    options = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    status, lines = verdict(done.stdout, done.stderr)
    print("\n".join(lines), file=sys.stderr if status else sys.stdout)
    return status


def verdict(report: str, errors: str) -> tuple[int, list[str]]:
    """Return the exit status and the lines to print for pip-audit's JSON report and its stderr."""
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except ValueError:
        last = (errors.strip() or "pip-audit printed nothing").splitlines()[-1]
        if any(sign in errors for sign in UNREACHABLE):
            return 0, [f"not audited, the advisory service could not be reached: {last}"]
        return 2, [f"not audited: {last}"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return 0, [f"not audited, the advisory service answered for none of {len(packages)} packages"]
    bad = [(package, entry) for package in packages for entry in package.get("vulns", ())]
    lines = [
        f"{package['name']} {package['version']}: {entry['id']}, fixed in {entry['fix_versions'] or 'none yet'}"
        for package, entry in bad
    ]
    lines.append(f"{len(packages) - len(skipped)} packages audited, {len(bad)} known vulnerabilities")
    if skipped:
        lines.append(f"not known to the advisory service: {', '.join(skipped)}")
    return int(bool(bad)), lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
