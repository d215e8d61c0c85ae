"""A gRPC server that refuses every call with the authorization that it brings."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import grpc


class _TokenReader(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        metadata = dict(handler_call_details.invocation_metadata)

        def refuse(_request, context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"token: {metadata.get('authorization')}")

        return grpc.unary_unary_rpc_method_handler(refuse)


@contextlib.contextmanager
def token_reader():
    """Run the server, and give its address."""
    server = grpc.server(ThreadPoolExecutor(4), [_TokenReader()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
