"""`convlens doctor`: diagnoses the deployment around the server of the given settings. Changes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import typer
from pydantic import TypeAdapter, ValidationError

from convlens.jobs.runtime.checks import Finding, Level, run_checks
from convlens.jobs.runtime.command_line import make_settings, option, parse_flags
from convlens.server.checks import CHECKS, ServerDeployment, check_version
from convlens.server.settings import ServerSettings
from convlens.v1 import model_pb2, model_pb2_grpc

PROGRAM: Final = "convlens doctor"
SUMMARY: Final = """Check Redis, memory, clocks, TLS and token files, models and versions for a server of these
settings.

Give the same flags, variables and file as to `convlens server`. It changes nothing. Exit status: 0 fine, 1 problems,
2 wrong flags or settings.

Example:

  convlens doctor --server queue:50051 --redis-url redis://queue:6379/0
"""
JSON_HELP: Final = "One JSON object: ok, and findings by check, level, message."
SERVER_HELP: Final = (
    "Also call this server as a client does, with CONVLENS_TOKEN, CONVLENS_CA, CONVLENS_CERT, CONVLENS_KEY."
)


def main(argv: list[str] | None = None) -> int:
    """Print the findings of each check; return 0 without problems, 1 with any, 2 for wrong flags or settings."""
    panel = "What is checked and shown"
    flags = parse_flags(
        ServerSettings, PROGRAM, sys.argv[1:] if argv is None else argv, SUMMARY,
        [
            option("as_json", bool, False, typer.Option("--json", help=JSON_HELP, rich_help_panel=panel)),
            option("target", str | None, None, typer.Option("--server", metavar="HOST:PORT", help=SERVER_HELP,
                   rich_help_panel=panel)),
        ],
    )  # fmt: skip
    settings = make_settings(ServerSettings, PROGRAM, flags)
    findings = list(run_checks(CHECKS, ServerDeployment(settings)))
    if flags["target"]:
        findings += [Finding("server", level, message) for level, message in _check_server(flags["target"])]
    problems = sum(finding.is_problem for finding in findings)
    if flags["as_json"]:
        print(
            json.dumps(
                {"ok": not problems, "findings": [dataclasses.asdict(finding) for finding in findings]}, indent=2
            )
        )
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            print(f"{finding.level:8} {finding.check:{width}}  {finding.message}")
        noun = "problem" if problems == 1 else "problems"
        print(f"{problems} {noun}" if problems else "no problems")
    return int(bool(problems))


def _check_server(target: str) -> Iterator[tuple[Level, str]]:
    """Call a server as a client does, and check its version."""
    token = os.environ.get("CONVLENS_TOKEN", "")
    if not re.fullmatch("[!-~]*", token):
        yield Level.ERROR, "CONVLENS_TOKEN is no token: it contains characters other than visible ASCII"
        return
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        with _channel(target) as channel:
            stub: Any = model_pb2_grpc.ModelServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
            info = stub.GetServerInfo(model_pb2.GetServerInfoRequest(), metadata=metadata, timeout=5)
    except OSError as error:
        yield Level.ERROR, f"cannot read {error.filename}: {error.strerror}"
    except ValidationError:
        yield Level.ERROR, f"CONVLENS_TLS is {os.environ.get('CONVLENS_TLS')!r}; allowed: true, false, 1, 0"
    except grpc.RpcError as error:
        yield Level.ERROR, f"{target}: {error.code().name}: {error.details()}"
    else:
        yield check_version(f"server at {target}", info.version)
        if not info.default_model:
            yield Level.WARNING, f"{target} serves no model"


def _channel(target: str) -> grpc.Channel:
    """Open a channel as the SDK does with the same variables."""
    options = [("grpc.enable_http_proxy", 0)]
    files = [os.environ.get(f"CONVLENS_{name}") for name in ("CA", "KEY", "CERT")]
    is_tls = TypeAdapter(bool).validate_python(os.environ.get("CONVLENS_TLS") or "0")  # as the client reads it
    if not any(files) and not is_tls:
        return grpc.insecure_channel(target, options)
    contents = [Path(file).read_bytes() if file else None for file in files]
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(*contents), options)


if __name__ == "__main__":
    sys.exit(main())
