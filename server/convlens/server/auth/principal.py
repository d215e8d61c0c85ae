"""Who calls, and whether they may: a tenant and its roles, identified by a bearer token.

A call of convlens.v1 is rejected before its request is read, unless its token has the role of its method. Health and
reflection need no token.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from convlens.v1.reasons import Reason
from convlens.v1.status_error import StatusError

if TYPE_CHECKING:
    from convlens.server.auth.tokens import Tokens

log = logging.getLogger(__name__)


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

REQUIRED_ROLES: Final = {
    "/convlens.v1.VisualizationService/Visualize": Role.SUBMIT,
    "/convlens.v1.VisualizationService/VisualizeUnary": Role.SUBMIT,
    "/convlens.v1.JobService/SubmitJob": Role.SUBMIT,
    "/convlens.v1.JobService/GetJob": Role.SUBMIT,
    "/convlens.v1.JobService/WatchJob": Role.SUBMIT,
    "/convlens.v1.JobService/ListJobs": Role.SUBMIT,
    "/convlens.v1.JobService/CancelJob": Role.SUBMIT,
    "/convlens.v1.JobService/DeleteJob": Role.SUBMIT,
    "/convlens.v1.JobService/ReadJobResult": Role.SUBMIT,
    "/convlens.v1.ModelService/ListModels": Role.READ,
    "/convlens.v1.ModelService/GetModel": Role.READ,
    "/convlens.v1.ModelService/GetServerInfo": Role.READ,
}
"""By method. A method that is missing here needs an admin."""

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


class Authenticator:
    """Identifies callers by their bearer tokens; without a tokens file every caller has every role."""

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    def authenticate(self, method: str, context: Any) -> Caller:
        """Return who calls. StatusError, which is logged, when the token is missing, unknown, or lacks the role."""
        try:
            return self._authenticate(method, context.invocation_metadata())
        except StatusError as error:
            log.warning("peer=%s method=%s rejected reason=%s %s", context.peer(), method, error.reason, error.metadata)
            raise

    def _authenticate(self, method: str, metadata: Any) -> Caller:
        if self._tokens is None:
            return ANONYMOUS
        caller = self._tokens.caller(_bearer_token(metadata))
        if caller is None:
            raise StatusError(Reason.TOKEN_UNKNOWN, "this token is not, or no longer, known")
        role = REQUIRED_ROLES.get(method, Role.ADMIN)
        if role not in caller.roles:
            raise StatusError(
                Reason.ROLE_MISSING,
                f"{method.rpartition('/')[2]} needs the role {role}, which this token of {caller.tenant} lacks",
                metadata={"role": role, "tenant": caller.tenant},
            )
        return caller


def _bearer_token(metadata: Any) -> str:
    """Return the call's bearer token. StatusError when there is none, or several."""
    values = [value for name, value in metadata or () if name == "authorization"]
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        raise StatusError(Reason.TOKEN_MISSING, "this server needs one `authorization: Bearer TOKEN`")
    return str(token)
