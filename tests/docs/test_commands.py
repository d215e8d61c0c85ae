"""Every command in the documentation exists with the flags that it is shown with."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
from command_reference import walk
from markdown_blocks import PAGES, ROOT, commands_of

COMMANDS = [
    pytest.param(words, id=f"{page.relative_to(ROOT)}: {' '.join(words)}")
    for page in PAGES
    for words in commands_of(page)
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {"fuzz-images"}


@pytest.fixture(scope="module")
def known():
    """The Typer commands by their full names."""
    return dict(walk())


def test_the_documentation_has_commands():
    assert len([words for words in COMMANDS if words.values[0][0] == "convlens"]) > 40


@pytest.mark.parametrize("words", [words for words in COMMANDS if words.values[0][0] == "convlens"])
def test_a_command_of_convlens_is_understood(words, known):
    name, arguments = "convlens", words[1:]
    while True:
        command = known[name]
        context = command.context_class(command, info_name=name, **command.context_settings)
        if not hasattr(command, "commands"):
            break
        _, arguments, _ = command.make_parser(context).parse_args(args=list(arguments))
        if not arguments:
            return
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    command.parse_args(context, list(arguments))  # raises UsageError


@pytest.mark.parametrize("words", [words for words in COMMANDS if words.values[0][0] == "make"])
def test_a_target_of_make_exists(words):
    assert {word for word in words[1:] if "=" not in word} <= TARGETS


@pytest.mark.parametrize("words", [words for words in COMMANDS if words.values[0][:2] == ["python", "-m"]])
def test_a_module_that_is_run_exists(words):
    assert find_spec(words[2])
