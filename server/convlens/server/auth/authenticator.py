"""Identifies callers by their bearer tokens, and checks that they may call a method.

A call of convlens.v1 is rejected before its request is read, unless its token has the role of its method. Health and
reflection need no token.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from convlens.server.auth.principal import ANONYMOUS, Caller, Role
from convlens.server.auth.tokens import Tokens
from convlens.v1.reasons import Reason
from convlens.v1.status_error import StatusError

log = logging.getLogger(__name__)

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
