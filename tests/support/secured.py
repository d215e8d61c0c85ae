"""Tokens and certificates for tests of a server that has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from convlens.client import TLS
from convlens.local.certificates import Certificates


def new_token(file: Path, tenant: str, *roles: str) -> str:
    """Makes a token as an operator does, appends its entry to `file`, and returns it."""
    words = [word for role in roles for word in ("--role", role)]
    command = [sys.executable, "-m", "convlens.server.auth.new_token", "new", "--tenant", tenant, *words]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    with file.open("a") as out:
        out.write(made.stdout)
    return made.stderr.split()[-1]


def client_tls(made: Certificates) -> TLS:
    """What a client with a certificate shows and trusts."""
    return TLS(made.ca.certificate, made.client.certificate, made.client.key)
