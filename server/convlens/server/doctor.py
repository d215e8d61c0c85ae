"""`convlens doctor`: diagnoses the deployment around the server of the given settings. Changes nothing."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from pydantic import TypeAdapter, ValidationError

from convlens.jobs.runtime.checks import Finding, Level, run_checks
from convlens.server.checks import CHECKS, ServerDeployment, check_version
from convlens.server.settings import ServerSettings
from convlens.v1 import model_pb2, model_pb2_grpc

PROGRAM = "convlens doctor"


def main(argv: list[str] | None = None) -> int:
    """Print the findings of each check; return 0 without problems, 1 with any, 2 for wrong flags or settings."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        allow_abbrev=False,
        add_help=False,
        description="Checks Redis, memory, clocks, TLS and token files, models and versions for the server of these "
        "settings.",
        epilog="All other flags, CONVLENS_* variables and the file that CONVLENS_CONFIG names are those of `convlens "
        "server`: give the same. Exit status: 0 fine, 1 problems, 2 wrong flags or settings.",
    )
    parser.add_argument("-h", "--help", action="help", help="show this")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: ok, and findings by check, level, message"
    )
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="also call this server as a client does, with CONVLENS_TOKEN, CONVLENS_CA, CONVLENS_CERT, CONVLENS_KEY",
    )
    own, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    settings = ServerSettings.from_command_line(PROGRAM, rest)
    findings = list(run_checks(CHECKS, ServerDeployment(settings)))
    if own.server:
        findings += [Finding("server", level, message) for level, message in _check_server(own.server)]
    problems = sum(finding.is_problem for finding in findings)
    if own.json:
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
