"""`convlens token new`: generates a token. Its entry for the tokens file goes to stdout, the token itself to stderr."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
from typing import Final

from convlens.server.auth.principal import Role
from convlens.server.auth.tokens import TENANT, digest_of

RANDOM_BYTES: Final = 32
PREFIX: Final = "convlens_"
"""By which secret scanners recognize a token."""


def main(argv: list[str] | None = None) -> int:
    """Print a new token and its entry."""
    parser = argparse.ArgumentParser(prog="convlens token", description="Generates tokens, which authenticate callers.")
    commands = parser.add_subparsers(required=True, metavar="new")
    new = commands.add_parser(
        "new",
        help="generate a token",
        description="Generates a token. Its entry goes to stdout, for `>> tokens.toml`; the token to stderr.",
    )
    new.add_argument("--tenant", required=True, type=_tenant, help="its owner; jobs belong to tenants")
    names = [role.value for role in Role]
    new.add_argument("--role", action="append", required=True, choices=names, help="may be given several times")
    arguments = parser.parse_args(sys.argv[1:] if argv is None else argv)
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    roles = json.dumps(sorted(set(arguments.role), key=names.index))
    print(f'[[token]]\ntenant = "{arguments.tenant}"\nroles = {roles}\nsha256 = "{digest_of(token).hex()}"\n')
    print(f"The token, for {arguments.tenant} alone; it is stored nowhere:\n{token}", file=sys.stderr)
    return 0


def _tenant(text: str) -> str:
    if not re.fullmatch(TENANT, text):
        raise argparse.ArgumentTypeError(f"{text!r} is none; allowed: {TENANT}")
    return text


if __name__ == "__main__":
    sys.exit(main())
