"""Tokens: their tenants and roles, changes of their file while the server runs, and secrecy."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import time
import tomllib

import pytest
from credentials import new_token
from processes import until

from convlens.server.auth.principal import Caller, Role
from convlens.server.auth.reloading_file import SETTLING_SECONDS, UnusableFile
from convlens.server.auth.tokens import Tokens

GOOD = hashlib.sha256(b"a token").hexdigest()


def entry(tenant="acme", roles='["read"]', sha256=GOOD, more=""):
    return f'[[token]]\ntenant = "{tenant}"\nroles = {roles}\nsha256 = "{sha256}"\n{more}\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text("# ours\n")
    return path


def replace(file, content):
    """Replace the file as an operator should: write a new one and rename it over the old."""
    part = file.with_suffix(".part")
    part.write_text(content)
    part.replace(file)


def test_a_token_identifies_its_tenant_and_roles(file):
    one, two = new_token(file, "acme", "submit", "read"), new_token(file, "globex", "read")
    boss = new_token(file, "operators", "admin")
    tokens = Tokens(file)
    assert tokens.caller(one) == Caller("acme", frozenset({"read", "submit"}))
    assert tokens.caller(two) == Caller("globex", frozenset({"read"}))
    assert tokens.caller(boss) == Caller("operators", frozenset(Role))


def test_a_token_in_another_case_cut_or_extended_is_unknown(file):
    token = new_token(file, "acme", "read")
    tokens = Tokens(file)
    for wrong in (token.lower(), token.upper(), token.swapcase(), token[:-1], token + "A", token + " ", "", "é"):
        assert tokens.caller(wrong) is None


def test_new_tokens_are_long_and_unique_and_their_file_has_only_digests(file):
    tokens = {new_token(file, "acme", "read") for _ in range(3)}
    assert len(tokens) == 3
    content = file.read_text()
    for token in tokens:
        assert len(token.removeprefix("convlens_")) == 43  # 32 bytes in base64
        assert token not in content
    digests = {entry["sha256"] for entry in tomllib.loads(content)["token"]}
    assert digests == {hashlib.sha256(token.encode()).hexdigest() for token in tokens}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("token = 3", r"must hold \[\[token\]\] entries and nothing else"),
        ("[[token]", "not TOML"),
        (entry() + "[other]\n", "nothing else"),
        (entry() + entry("globex"), "token 2: sha256: is that of an earlier one"),
        (entry(tenant=""), "token 1: tenant: "),
        (entry(tenant="a:b"), "token 1: tenant: "),
        (entry(tenant="a\\nb"), "token 1: tenant: "),
        (entry(roles="[]"), "token 1: roles: "),
        (entry(roles='["root"]'), r"token 1: roles.0: Input should be 'read', 'submit' or 'admin'"),
        (entry(sha256="convlens_secret"), "token 1: sha256: "),
        (entry(sha256=GOOD.upper()), "token 1: sha256: "),
        (entry(more="expires = 3"), "token 1: expires: "),
        (entry() + '[[token]]\ntoken = "convlens_secret"\n', "token 2: tenant: "),
    ],
)
def test_a_wrong_file_is_refused_with_its_error_and_without_secrets(file, content, message):
    file.write_text(content)
    with pytest.raises(UnusableFile, match=message) as caught:
        Tokens(file)
    assert str(file) in str(caught.value)
    assert "convlens_secret" not in str(caught.value)


def test_a_missing_file_is_refused(file):
    with pytest.raises(UnusableFile, match=r"cannot read .*gone.toml: No such file"):
        Tokens(file.with_name("gone.toml"))


@pytest.mark.parametrize("change", ["renamed over", "written in place", "appended"])
def test_a_changed_file_is_read_again(file, change):
    old = new_token(file, "acme", "read")
    tokens = Tokens(file)
    assert tokens.caller(old)
    new = new_token(other := file.with_name("other.toml"), "acme", "read")
    match change:
        case "renamed over":
            replace(file, other.read_text())
        case "written in place":
            file.write_text(other.read_text())
        case "appended":
            file.write_text(file.read_text() + other.read_text())
    if change == "appended":
        assert tokens.caller(new)
    until(lambda: tokens.caller(new), 5)  # a missing token is refused a second later
    assert (tokens.caller(old) is not None) == (change == "appended")


def test_an_empty_file_admits_nobody_until_it_has_a_token_and_is_logged(file, caplog):
    tokens = Tokens(file)
    assert tokens.caller("a token") is None
    replace(file, entry())
    assert tokens.caller("a token")
    replace(file, "")
    assert tokens.caller("a token")  # an empty file takes effect a second later
    until(lambda: tokens.caller("a token") is None, 5)
    assert caplog.text.count("holds no token: nobody may call until it does") == 2


@pytest.mark.parametrize("change", ["a comment in front", "an entry in front", "another order", "another token"])
def test_no_token_is_refused_while_a_file_with_a_change_at_its_beginning_is_written(file, change):
    old = [new_token(file, tenant, "read") for tenant in ("acme", "globex", "initech")]
    tokens = Tokens(file)
    whole = file.read_text()
    entries = [f"[[token]]{rest}" for rest in whole.split("[[token]]")[1:]]
    new = {
        "a comment in front": f"# rotated\n{whole}",
        "an entry in front": entry("umbrella") + whole,
        "another order": "".join(f"{text.strip()}\n" for text in reversed(entries)),
        "another token": entry("acme") + "".join(entries[1:]),
    }[change]
    for end in range(0, len(new) + 1, 3):
        file.write_text(new[:end])
        assert all(map(tokens.caller, old))
    until(lambda: tokens.caller(old[0]) is None or change != "another token", 5)
    assert all(map(tokens.caller, old[1:]))


@pytest.mark.parametrize("kind", ["a pipe", "a device", "endless", "huge", "a folder"])
def test_a_path_that_is_no_regular_file_does_not_block_and_changes_nothing(file, kind, caplog):
    token = new_token(file, "acme", "read")
    tokens = Tokens(file)
    good = file.read_text()
    file.unlink()
    match kind:
        case "a pipe":
            os.mkfifo(file)
        case "a device":
            file.symlink_to("/dev/tty")
        case "endless":
            file.symlink_to("/dev/zero")
        case "huge":
            with file.open("wb") as out:
                out.truncate(1 << 40)  # sparse
        case "a folder":
            file.mkdir()
    started = time.monotonic()
    for _ in range(3):
        assert tokens.caller(token)
    with pytest.raises(UnusableFile, match=f"tokens: cannot read {file}: "):
        Tokens(file)
    assert time.monotonic() - started < 2
    assert "stays in force" in caplog.text
    file.rmdir() if kind == "a folder" else file.unlink()
    file.write_text(good.replace("acme", "globex"))
    until(lambda: tokens.caller(token).tenant == "globex", 5)


@pytest.mark.parametrize("cut", ["empty", "a comment", "an entry less"])
def test_a_file_cut_short_keeps_its_tokens_until_it_has_settled(file, cut, caplog):
    one, two = new_token(file, "acme", "read"), new_token(file, "globex", "read")
    tokens = Tokens(file)
    whole = file.read_text()
    part = {"empty": "", "a comment": "# another\n", "an entry less": whole[: whole.rindex("[[token]]")]}[cut]
    file.write_text(part)
    assert tokens.caller(one)
    assert tokens.caller(two)
    file.write_text(whole)  # its writer continues
    assert tokens.caller(two)
    file.write_text(part)
    assert tokens.caller(two)
    until(lambda: tokens.caller(two) is None, 5)
    assert (tokens.caller(one) is not None) == (cut == "an entry less")
    assert "as if a file were being written" in caplog.text


def test_a_file_emptied_long_before_a_call_admits_nobody(file):
    token = new_token(file, "acme", "read")
    tokens = Tokens(file)
    assert tokens.caller(token)
    file.write_text("")
    time.sleep(SETTLING_SECONDS + 0.1)  # nobody calls meanwhile
    assert tokens.caller(token) is None


def test_a_change_that_the_files_times_do_not_show_is_noticed(file):
    token = new_token(file, "acme", "read")
    tokens = Tokens(file)
    file.write_text(file.read_text().replace("acme", "evil"))
    # as where both changes fall into one step of the file system's clock
    tokens._file._marks = tokens._file._read_marks()
    assert tokens.caller(token).tenant == "acme"
    until(lambda: tokens.caller(token).tenant == "evil", 5)


def test_a_file_that_cannot_be_read_for_lack_of_descriptors_is_read_later(file):
    token = new_token(file, "acme", "read")
    program = (
        "import pathlib, resource, sys, time; from convlens.server.auth.tokens import Tokens\n"
        "file = pathlib.Path(sys.argv[1]); good = file.read_text(); tokens = Tokens(file)\n"
        "file.write_text(good.replace('acme', 'globex'))\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE); resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))\n"
        "print(tokens.caller(sys.argv[2]).tenant)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "end = time.monotonic() + 10\n"
        "while tokens.caller(sys.argv[2]).tenant == 'acme' and time.monotonic() < end: time.sleep(0.05)\n"
        "print(tokens.caller(sys.argv[2]).tenant)"
    )
    done = subprocess.run([sys.executable, "-c", program, file, token], check=True, capture_output=True, text=True)
    assert done.stdout == "acme\nglobex\n"
    assert "Too many open files" in done.stderr


@pytest.mark.parametrize("damage", ["removed", "wrong", "half"])
def test_tokens_stay_in_force_when_their_file_goes_bad_and_one_error_is_logged(file, damage, caplog):
    caplog.set_level(logging.INFO)
    token = new_token(file, "acme", "read")
    tokens = Tokens(file)
    good = file.read_text()
    match damage:
        case "removed":
            file.unlink()
        case "wrong":
            replace(file, good + "[[token]]\n")
        case "half":
            file.write_text(good[:-30])
    for _ in range(3):
        assert tokens.caller(token)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "stays in force" in caplog.text
    replace(file, entry())
    until(lambda: tokens.caller(token) is None, 5)
    assert tokens.caller("a token")
    assert token not in caplog.text


def test_a_file_that_becomes_unreadable_keeps_its_tokens(file):
    token = new_token(file, "acme", "read")
    program = (
        "import os, pathlib, sys; from convlens.server.auth.tokens import Tokens\n"
        "file = pathlib.Path(sys.argv[1]); tokens = Tokens(file); file.chmod(0)\n"
        "if os.geteuid() == 0: os.setuid(65534)  # root may read everything\n"
        "print(tokens.caller(sys.argv[2]).tenant)"
    )
    done = subprocess.run([sys.executable, "-c", program, file, token], check=True, capture_output=True, text=True)
    assert done.stdout == "acme\n"
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--tenant", "acme"], ["--role", "read"], ["--tenant", "a b", "--role", "read"], ["--tenant", "a", "--role", "x"]],
    ids=" ".join,
)
def test_the_command_refuses_what_the_file_would_refuse(arguments):
    command = [sys.executable, "-m", "convlens.server.auth.new_token", "new", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: convlens token new" in done.stderr
    assert "Invalid value for" in done.stderr or "Missing option" in done.stderr
