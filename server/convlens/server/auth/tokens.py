"""Reads the tokens file: SHA-256 digests of bearer tokens, each with a tenant and roles. Tokens are stored nowhere.

[[token]]
tenant = "acme"
roles = ["read", "submit"]
sha256 = "…"

Without entries no call is accepted.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from convlens.server.auth.principal import Caller, Role
from convlens.server.auth.reloading_file import ReloadingFile, UnusableFile

TENANT: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Pattern of a tenant's name."""


class Token(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Annotated[str, StringConstraints(pattern=f"^{TENANT}$")]
    roles: Annotated[frozenset[Role], Field(min_length=1)]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]

    def caller(self) -> Caller:
        """Return the caller that this token authenticates."""
        return Caller(self.tenant, frozenset(Role) if Role.ADMIN in self.roles else frozenset(self.roles))


class Tokens:
    """The tokens of a file, which may be replaced at any time. UnusableFile when it cannot be used at first."""

    def __init__(self, path: Path) -> None:
        self._file = ReloadingFile(
            {"tokens": path},
            lambda contents: _parse(path, *contents),
            lambda new, old: not {digest for digest, _ in old} <= {digest for digest, _ in new},
            "holds no token: nobody may call until it does; convlens token new makes one",
        )

    def tenants(self) -> dict[str, int]:
        """Return the number of tokens of each tenant."""
        return dict(Counter(caller.tenant for _, caller in self._file.value))

    def caller(self, token: str) -> Caller | None:
        """Return the owner of a token, or None. Takes constant time, so that it leaks nothing of the known digests."""
        presented = digest_of(token)
        match = None
        for digest, caller in self._file.value:
            if hmac.compare_digest(digest, presented):
                match = caller
        return match


def digest_of(token: str) -> bytes:
    """Return the SHA-256 of a token: enough for 32 random bytes, which need no password hash."""
    return hashlib.sha256(token.encode()).digest()


def _parse(path: Path, text: bytes) -> list[tuple[bytes, Caller]]:
    try:
        content = tomllib.loads(text.decode())
    except ValueError as error:
        raise UnusableFile(f"tokens: {path} is not TOML in UTF-8: {error}") from None
    entries = content.pop("token", [])
    if content or not isinstance(entries, list):
        raise UnusableFile(f"tokens: {path} must hold [[token]] entries and nothing else")
    callers: dict[bytes, Caller] = {}
    for number, entry in enumerate(entries, 1):
        try:
            token = Token.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UnusableFile(f"tokens: {path}: token {number}: {where}: {first['msg']}") from None
        if (digest := bytes.fromhex(token.sha256)) in callers:
            raise UnusableFile(f"tokens: {path}: token {number}: sha256: is that of an earlier one")
        callers[digest] = token.caller()
    return list(callers.items())
