"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call comes from."""

    tenant: str
    roles: frozenset[str]


_EVERYBODY = Caller("", frozenset({"read", "submit", "admin"}))


def caller() -> Caller:
    """The caller of the call that is being answered."""
    return _EVERYBODY
