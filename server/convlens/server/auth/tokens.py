"""The tokens file: SHA-256 digests of bearer tokens, each with a tenant and roles. Tokens themselves are kept nowhere.

[[token]]
tenant = "acme"
roles = ["read", "submit"]
sha256 = "…"

A file without entries lets nobody in.
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
from convlens.server.auth.reloading_file import Unusable, Watched

TENANT: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a tenant may be called."""


class Token(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Annotated[str, StringConstraints(pattern=f"^{TENANT}$")]
    roles: Annotated[frozenset[Role], Field(min_length=1)]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]

    def caller(self) -> Caller:
        """Whoever shows this token."""
        return Caller(self.tenant, frozenset(Role) if Role.ADMIN in self.roles else frozenset(self.roles))


class Tokens:
    """The tokens of a file, which may be replaced at any time. Raises Unusable when it is unusable at first."""

    def __init__(self, path: Path) -> None:
        self._file = Watched(
            {"tokens": path},
            lambda contents: _parse(path, *contents),
            lambda new, old: not {known for known, _ in old} <= {known for known, _ in new},
            "holds no token: nobody may call until it does; convlens token new makes one",
        )

    def tenants(self) -> dict[str, int]:
        """How many tokens each tenant has."""
        return dict(Counter(who.tenant for _, who in self._file.value))

    def caller(self, token: str) -> Caller | None:
        """Whose token it is; None: nobody's. The time taken does not tell how near a wrong one comes."""
        shown = digest(token)
        found = None
        for known, who in self._file.value:
            if hmac.compare_digest(known, shown):
                found = who
        return found


def digest(token: str) -> bytes:
    """What is kept of a token. Tokens are 32 random bytes, so that one round of SHA-256 is enough."""
    return hashlib.sha256(token.encode()).digest()


def _parse(path: Path, text: bytes) -> list[tuple[bytes, Caller]]:
    try:
        content = tomllib.loads(text.decode())
    except ValueError as error:
        raise Unusable(f"tokens: {path} is not TOML in UTF-8: {error}") from None
    entries = content.pop("token", [])
    if content or not isinstance(entries, list):
        raise Unusable(f"tokens: {path} must hold [[token]] entries and nothing else")
    found: dict[bytes, Caller] = {}
    for number, entry in enumerate(entries, 1):
        try:
            token = Token.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise Unusable(f"tokens: {path}: token {number}: {where}: {first['msg']}") from None
        if (known := bytes.fromhex(token.sha256)) in found:
            raise Unusable(f"tokens: {path}: token {number}: sha256: is that of an earlier one")
        found[known] = token.caller()
    return list(found.items())
