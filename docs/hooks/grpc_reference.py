"""The reference of the gRPC API as Markdown, from the .proto files and their comments (a descriptor set of buf's)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

Comments = dict[tuple[int, ...], str]
"""Comments by the path of their element in a descriptor."""
ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ".convlens.v1."
INTRODUCTION: Final = f"""# The gRPC API

Package `{PACKAGE.strip(".")}`, for programs in any language. Python programs use the [SDK](client.md). The files are in
[`proto/convlens/v1`](../proto/convlens/v1), the stubs in the distribution `convlens-proto`; a server has reflection, so
`grpcurl` can list and call its methods. Errors and their reasons are in [Errors](errors.md), tokens and TLS in
[Securing a service](securing.md).
"""
MESSAGES, ENUMS, SERVICES = (
    FileDescriptorProto.DESCRIPTOR.fields_by_name[name].number for name in ("message_type", "enum_type", "service")
)
FIELDS, NESTED_MESSAGES, NESTED_ENUMS = (
    DescriptorProto.DESCRIPTOR.fields_by_name[name].number for name in ("field", "nested_type", "enum_type")
)
METHODS = VALUES = 2
"""The numbers of ServiceDescriptorProto.method and of EnumDescriptorProto.value."""


def render() -> str:
    """Return the page: services first, then messages and enums, file by file."""
    files = [file for file in read_descriptors().file if file.package == PACKAGE.strip(".")]
    main_first = reversed(files)
    services = [line for file in main_first for line in _render_services(file, _read_comments(file))]
    types = [line for file in files for line in _render_types(file, _read_comments(file))]
    return "\n".join([INTRODUCTION, *services, *types])


def read_descriptors() -> FileDescriptorSet:
    """Return the descriptors of all .proto files, with their comments."""
    buf = Path(sys.executable).with_name("buf")
    command = [str(buf), "build", "--as-file-descriptor-set", "-o", "-"]
    built = subprocess.run(command, cwd=ROOT / "proto", check=True, stdout=subprocess.PIPE)
    return FileDescriptorSet.FromString(built.stdout)


def _read_comments(file: FileDescriptorProto) -> Comments:
    """Return the comment of each element, by its path in the descriptor."""
    return {
        tuple(location.path): " ".join((location.leading_comments or location.trailing_comments).split())
        for location in file.source_code_info.location
    }


def _render_services(file: FileDescriptorProto, comments: Comments) -> Iterator[str]:
    for at, service in enumerate(file.service):
        yield f"\n## {service.name}\n\n{_escape(comments[SERVICES, at])}\n"
        for number, method in enumerate(service.method):
            request = f"{'stream ' if method.client_streaming else ''}{_link_type(method.input_type)}"
            response = f"{'stream ' if method.server_streaming else ''}{_link_type(method.output_type)}"
            yield f"### {method.name}\n\n({request}) → {response}\n"
            yield f"{_escape(comments[SERVICES, at, METHODS, number])}\n"


def _render_types(file: FileDescriptorProto, comments: Comments) -> Iterator[str]:
    yield f"\n## {Path(file.name).name}\n"
    if heading := comments.get((12,), ""):  # the comment on `syntax`, which is the file's first line
        yield f"{_escape(heading)}\n"
    for at, message in enumerate(file.message_type):
        yield from _render_message(message, "", (MESSAGES, at), comments)
    for at, enum in enumerate(file.enum_type):
        yield from _render_enum(enum, "", (ENUMS, at), comments)


def _render_message(message: DescriptorProto, prefix: str, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    if message.options.map_entry:
        return
    name = prefix + message.name
    yield f"### {name}\n\n{_escape(comments.get(path, ''))}\n"
    if message.field:
        yield "| field | type | meaning |\n| --- | --- | --- |"
    maps = {f"{PACKAGE}{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    for at, field in enumerate(message.field):
        oneof = ""
        if field.HasField("oneof_index") and not field.proto3_optional:
            oneof = f"One of `{message.oneof_decl[field.oneof_index].name}`. "
        meaning = oneof + _escape(comments.get((*path, FIELDS, at), ""))
        yield f"| `{field.name}` | {_describe_type(field, maps)} | {_escape_cell(meaning)} |"
    yield ""
    for at, nested in enumerate(message.nested_type):
        yield from _render_message(nested, f"{name}.", (*path, NESTED_MESSAGES, at), comments)
    for at, enum in enumerate(message.enum_type):
        yield from _render_enum(enum, f"{name}.", (*path, NESTED_ENUMS, at), comments)


def _render_enum(enum: EnumDescriptorProto, prefix: str, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield f"### {prefix}{enum.name}\n\n{_escape(comments.get(path, ''))}\n"
    yield "| value | number | meaning |\n| --- | --- | --- |"
    for at, value in enumerate(enum.value):
        yield f"| `{value.name}` | {value.number} | {_escape_cell(_escape(comments.get((*path, VALUES, at), '')))} |"
    yield ""


def _describe_type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    if entry := maps.get(field.type_name):
        key, value = entry.field
        return f"map of {_describe_type(key, {})} to {_describe_type(value, {})}"
    kind: Any = FieldDescriptorProto.Type
    name = _link_type(field.type_name) if field.type_name else kind.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _link_type(type_name: str) -> str:
    """Return a type's name, linked where it is one of this page."""
    if not type_name.startswith(PACKAGE):
        return f"`{type_name.lstrip('.')}`"
    name = type_name.removeprefix(PACKAGE)
    return f"[{name}](#{name.lower().replace('.', '')})"


def _escape(comment: str) -> str:
    """Return a comment as Markdown text: what looks like markup is meant literally."""
    return re.sub(r"([*_<\[\]])", r"\\\1", comment)


def _escape_cell(text: str) -> str:
    return text.replace("|", "\\|")
