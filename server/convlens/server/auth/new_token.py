"""`convlens token new`: generates a token. Its entry for the tokens file goes to stdout, the token itself to stderr."""

from __future__ import annotations

import json
import re
import secrets
import sys
from typing import Annotated, Final

import typer

from convlens.server.auth.principal import Role
from convlens.server.auth.tokens import TENANT, digest_of

RANDOM_BYTES: Final = 32
PREFIX: Final = "convlens_"
"""By which secret scanners recognize a token."""


app: Final = typer.Typer(
    help="Make tokens, which authenticate callers.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    """Make `new` a subcommand, though it is the only one."""


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
    try:
        app(args=sys.argv[1:] if argv is None else argv, prog_name="convlens token")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
