"""Who calls: a tenant and its roles."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a caller may do."""

    READ = "read"
    """Read models and the server's limits."""
    SUBMIT = "submit"
    """Submit jobs; read, cancel and delete those of its own tenant."""
    ADMIN = "admin"
    """Everything, for the jobs of every tenant."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a token. An admin has the other roles, too."""

    tenant: str
    roles: frozenset[str]


ANONYMOUS: Final = Caller("", frozenset(Role))
"""The caller of every call to a server without tokens."""

_CALLER: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Return the caller of the current call.

    LookupError outside of a call's tasks, in pool threads too, so that a forgotten check fails closed.
    """
    return _CALLER.get()


def current_tenant() -> str:
    """Return the tenant of the current call; empty without tokens, and for calls that need none."""
    caller = _CALLER.get(None)
    return caller.tenant if caller else ""


def set_caller(caller: Caller) -> None:
    """Set the caller for this task and those that it starts."""
    _CALLER.set(caller)
