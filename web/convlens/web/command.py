"""`convlens web`: serve the HTTP gateway and the page until SIGTERM."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from convlens.client import TLS, InvalidArgument
from convlens.client.timeouts import DEFAULT_CONNECT_TIMEOUT
from convlens.web.settings import DEFAULT_MAX_BODY_BYTES, DEFAULT_PORT, WebSettings

NAME: Final = "convlens web"
LOG_FORMAT: Final = "time=%(asctime)s.%(msecs)03d level=%(levelname)s logger=%(name)s %(message)s"
SERVER_PANEL: Final = "The server called"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def serve(
    server: Annotated[
        str,
        typer.Option(envvar="CONVLENS_SERVER", help="HOST:PORT of the server.", rich_help_panel=SERVER_PANEL),
    ] = "localhost:50051",
    tls: Annotated[
        bool,
        typer.Option(
            "--tls", envvar="CONVLENS_TLS", help="TLS, trusting the system's authorities.",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = False,
    ca: Annotated[
        Path | None,
        typer.Option(
            envvar="CONVLENS_CA", help="PEM file of whom to trust instead; turns TLS on.",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(
            envvar="CONVLENS_CERT", help="PEM file of the gateway's own certificate, for mTLS.",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(envvar="CONVLENS_KEY", help="PEM file of its key.", rich_help_panel=SERVER_PANEL),
    ] = None,
    connect_timeout: Annotated[
        float,
        typer.Option(
            envvar="CONVLENS_CONNECT_TIMEOUT", min=0.001, rich_help_panel=SERVER_PANEL,
            help="Seconds after which a server that was never reached is given up.",
        ),
    ] = DEFAULT_CONNECT_TIMEOUT,
    host: Annotated[
        str, typer.Option(envvar="CONVLENS_WEB_HOST", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="CONVLENS_WEB_PORT", min=0, max=65535, help="Port; 0 picks a free one.")
    ] = DEFAULT_PORT,
    max_body_bytes: Annotated[
        int, typer.Option(envvar="CONVLENS_WEB_MAX_BODY_BYTES", min=1024, help="Bytes of one request.")
    ] = DEFAULT_MAX_BODY_BYTES,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CONVLENS_WEB_ALLOWED_HOSTS", metavar="NAME", show_default=False,
            help="Name by which browsers may call the gateway, beside those of this machine; may be repeated.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Serve maps over HTTP, and a page to explore them in a browser. Ctrl-C or SIGTERM ends it.

    Prints `ready: http HOST:PORT` to stdout once it serves. Callers bring their own tokens, as `Authorization: Bearer`.
    """
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what is wrong with a form is its sender's to know
    from convlens.web.http_server import HttpServer

    settings = WebSettings(
        server=server, tls=TLS(ca, cert, key) if tls or ca or cert or key else None, connect_timeout=connect_timeout,
        host=host, port=port, max_body_bytes=max_body_bytes, allowed_hosts=tuple(allowed_host or ()),
    )  # fmt: skip
    try:
        HttpServer(settings).run_until_signal()
    except InvalidArgument as error:
        raise typer.BadParameter(error.message) from error
    except OSError as error:
        print(f"{NAME}: cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
        raise typer.Exit(1) from None


class WebCommand:
    """The entry point: call it with the arguments; it returns the exit status."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Serve until a signal. Wrong arguments end with status 2."""
        try:
            app(args=sys.argv[1:] if argv is None else list(argv), prog_name=NAME)
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    def command(self) -> Any:
        """Return the command with its flags, for the shell's completion."""
        return typer.main.get_command(app)


main: Final = WebCommand()
