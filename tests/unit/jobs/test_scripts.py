"""The Lua scripts include each file of lua/lib that they use, and take their options by name."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from convlens.jobs.queue.scripts import _source

FOLDER = resources.files("convlens.jobs.queue") / "lua"
SCRIPTS = sorted(path.name.removesuffix(".lua") for path in FOLDER.iterdir() if path.name.endswith(".lua"))


def code(lua: str) -> str:
    """Lua without comments and strings."""
    return re.sub(r"""--[^\n]*|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", "", lua)


def definitions(lua: str) -> set[str]:
    """The names of a file's local functions and variables at the top level."""
    names = re.findall(r"^local (?:function )?([\w, ]+)", lua, re.MULTILINE)
    return {name.strip() for group in names for name in group.split(",")}


LIBRARY = set().union(*(definitions(code(path.read_text())) for path in (FOLDER / "lib").iterdir()))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_includes_the_definition_of_each_library_name_that_it_uses(name):
    source = code(_source(name))
    used = LIBRARY & set(re.findall(r"(?<![.\w])\w+", source))
    assert used
    assert used <= definitions(source)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_does_and_what_it_takes_and_returns(name):
    head = re.match(r"#!lua.*\n((?:--.*\n)+)", (FOLDER / f"{name}.lua").read_text())
    assert head
    assert all(word in head[1] for word in ("KEYS: none", "Options:", "Returns"))
