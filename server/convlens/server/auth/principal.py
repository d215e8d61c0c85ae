"""Who calls: a tenant and its roles, known for the length of a call. Knows neither tokens nor gRPC."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a caller may do."""

    READ = "read"
    """Models and the server's limits."""
    SUBMIT = "submit"
    """Jobs and results of its own tenant."""
    ADMIN = "admin"
    """All of it, and every tenant's jobs."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token belongs to. An admin has the other roles, too."""

    tenant: str
    roles: frozenset[str]


EVERYBODY: Final = Caller("", frozenset(Role))
"""The caller of every call to a server without tokens."""

_CALLER: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """The caller of the call that this code serves.

    LookupError anywhere else, threads of a pool included: nobody is let in by mistake. Ask in the call's task.
    """
    return _CALLER.get()


def tenant() -> str:
    """The tenant of this code's call; empty without tokens, and for calls that need none."""
    who = _CALLER.get(None)
    return who.tenant if who else ""


def called_by(who: Caller) -> None:
    """From here on this task, and those it starts, serve a call of `who`."""
    _CALLER.set(who)
