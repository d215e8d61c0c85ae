"""`convlens token new`: makes a token. Its entry for the tokens file goes to stdout, the token itself to stderr."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
from typing import Final

from convlens.server.auth.principal import Role
from convlens.server.auth.tokens import TENANT, digest

RANDOM_BYTES: Final = 32
PREFIX: Final = "convlens_"
"""So that tools that look for leaked secrets know one when they see it."""


def main(argv: list[str] | None = None) -> int:
    """Prints a new token, and the lines that let it in."""
    parser = argparse.ArgumentParser(prog="convlens token", description="Tokens that let callers in.")
    commands = parser.add_subparsers(required=True, metavar="new")
    new = commands.add_parser(
        "new",
        help="make a token",
        description="Makes a token. Its entry goes to stdout, so that `>> tokens.toml` keeps it; the token to stderr.",
    )
    new.add_argument("--tenant", required=True, type=_tenant, help="whose it is; jobs belong to tenants")
    names = [role.value for role in Role]
    new.add_argument("--role", action="append", required=True, choices=names, help="may be given several times")
    asked = parser.parse_args(sys.argv[1:] if argv is None else argv)
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    roles = json.dumps(sorted(set(asked.role), key=names.index))
    print(f'[[token]]\ntenant = "{asked.tenant}"\nroles = {roles}\nsha256 = "{digest(token).hex()}"\n')
    print(f"The token, for {asked.tenant} alone; it is kept nowhere:\n{token}", file=sys.stderr)
    return 0


def _tenant(text: str) -> str:
    if not re.fullmatch(TENANT, text):
        raise argparse.ArgumentTypeError(f"{text!r} is none; allowed: {TENANT}")
    return text


if __name__ == "__main__":
    sys.exit(main())
