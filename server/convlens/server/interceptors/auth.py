"""The gate: each call of convlens.v1 needs a token with the role of its method. Health and reflection stay open.

Who is refused is refused before a byte of the request is read. A stream that was let in is not asked again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from convlens.server.auth.principal import EVERYBODY, Caller, Role, called_by
from convlens.server.auth.tokens import Tokens
from convlens.server.status import Refusal

log = logging.getLogger(__name__)

NEEDED: Final = {
    "/convlens.v1.VisualizationService/Visualize": Role.SUBMIT,
    "/convlens.v1.VisualizationService/VisualizeUnary": Role.SUBMIT,
    "/convlens.v1.VisualizationService/VisualizeStream": Role.SUBMIT,
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
"""The role that each method needs; one that is not here needs an admin."""


class Gate(grpc.aio.ServerInterceptor):
    """Lets callers in by their tokens; everybody, with every role, where there are no tokens."""

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, with the caller known to its task, or one that refuses."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/convlens."):
            return handler
        try:
            called_by(self._admitted(method, handler_call_details.invocation_metadata))
        except Refusal as refusal:
            return _refusing(method, refusal)
        return handler

    def _admitted(self, method: str, metadata: Any) -> Caller:
        """Who calls. Raises a Refusal."""
        if self._tokens is None:
            return EVERYBODY
        who = self._tokens.caller(_token(metadata))
        if who is None:
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN", "this token is not, or no longer, known")
        needed = NEEDED.get(method, Role.ADMIN)
        if needed not in who.roles:
            raise Refusal(
                grpc.StatusCode.PERMISSION_DENIED,
                "ROLE_MISSING",
                f"{method.rpartition('/')[2]} needs the role {needed}, which this token of {who.tenant} lacks",
                metadata={"role": needed, "tenant": who.tenant},
            )
        return who


def _token(metadata: Any) -> str:
    """The bearer token that the call brought. Raises a Refusal when it brought none, or several."""
    shown = [value for name, value in metadata or () if name == "authorization"]
    scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        raise Refusal(
            grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING", "this server needs one `authorization: Bearer TOKEN`"
        )
    return str(token)


def _refusing(method: str, refusal: Refusal) -> Any:
    """A handler that refuses whatever comes, unread."""

    async def refuse(_requests: Any, context: Any) -> AsyncIterator[bytes]:
        log.info("peer=%s method=%s refused reason=%s %s", context.peer(), method, refusal.reason, refusal.metadata)
        raise refusal
        yield b""  # this makes it a stream, of nothing

    return grpc.stream_stream_rpc_method_handler(refuse)
