"""Generate the stubs of convlens.v1 from its .proto files into a folder (default: beside them). Use `make proto`.

The generator has an environment of its own with the packages of generator.txt. It is pinned to an old release so that
its output runs on every protobuf runtime that pyproject.toml admits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent


def main(out: Path) -> int:
    """Write the stubs of messages and services below `out` and return protoc's exit status."""
    out.mkdir(parents=True, exist_ok=True)
    sources = sorted(p.relative_to(HERE) for p in HERE.glob("convlens/v1/*.proto"))
    services = [p for p in sources if "\nservice " in (HERE / p).read_text()]
    return run(["python", "mypy"], sources, out) or run(["grpc_python", "mypy_grpc"], services, out)


def run(plugins: list[str], sources: list[Path], out: Path) -> int:
    """Run protoc once with `plugins` over `sources`."""
    includes = [HERE, Path(grpc_tools.__file__).parent / "_proto"]
    outputs = [f"--{plugin}_out={'quiet:' if 'mypy' in plugin else ''}{out}" for plugin in plugins]
    return int(protoc.main(["protoc", *(f"-I{i}" for i in includes), *outputs, *map(str, sources)]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE))
