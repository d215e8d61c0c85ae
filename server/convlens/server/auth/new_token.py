"""`convlens token new`: generates a token. Its entry for the tokens file goes to stdout, the token itself to stderr."""

from __future__ import annotations

import json
import re
import secrets
import sys
from typing import Annotated, Final

import typer

from convlens.jobs.runtime.command_line import make_group, run_group
from convlens.server.auth.principal import Role
from convlens.server.auth.tokens import TENANT, digest_of

RANDOM_BYTES: Final = 32
PREFIX: Final = "convlens_"
"""By which secret scanners recognize a token."""

app: Final = make_group("Make tokens, which authenticate callers.")


def _check_tenant(text: str) -> str:
    if not re.fullmatch(TENANT, text):
        raise typer.BadParameter(f"{text!r} is none; allowed: {TENANT}")
    return text


@app.command()
def new(
    tenant: Annotated[str, typer.Option(callback=_check_tenant, help="Its owner; jobs belong to tenants.")],
    role: Annotated[list[Role], typer.Option(help="What it permits; may be given several times.")],
) -> None:
    """Generate a token. Its entry goes to stdout, the token itself to stderr.

    Example:
      convlens token new --tenant acme --role submit --role read >> tokens.toml
    """
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    roles = json.dumps([each.value for each in Role if each in role])
    print(f'[[token]]\ntenant = "{tenant}"\nroles = {roles}\nsha256 = "{digest_of(token).hex()}"\n')
    print(f"The token, for {tenant} alone; it is stored nowhere:\n{token}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return run_group(app, "convlens token", argv)


if __name__ == "__main__":
    sys.exit(main())
