"""Tokens and client certificates for tests of servers that require them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from convlens.client import TLS
from convlens.local.certificates import Certificates


def new_token(file: Path, tenant: str, *roles: str) -> str:
    """Create a token by the operator's command, append its entry to `file`, and return the token."""
    flags = [flag for role in roles for flag in ("--role", role)]
    command = [sys.executable, "-m", "convlens.server.auth.new_token", "new", "--tenant", tenant, *flags]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    with file.open("a") as out:
        out.write(process.stdout)
    return process.stderr.split()[-1]


def client_tls(certificates: Certificates) -> TLS:
    """The TLS settings of a client with a certificate."""
    return TLS(certificates.ca.certificate, certificates.client.certificate, certificates.client.key)
