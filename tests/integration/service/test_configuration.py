"""A mistyped name, an empty value or a missing file prevents the start of a part, with a message that names it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from processes import running

from convlens.jobs.runtime.command_line import read_settings
from convlens.jobs.runtime.configuration import SERVER, SETTINGS, SHARED, WORKER
from convlens.jobs.runtime.settings import JobsSettings
from convlens.local.settings import UpSettings
from convlens.server.settings import ServerSettings
from convlens.worker.settings import WorkerSettings


def refusal(part, *flags, **variables):
    """Start a part that refuses its configuration, and return its message of one line."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONVLENS_")}
    env["PYTHONWARNINGS"] = "ignore"
    command = [sys.executable, "-m", f"convlens.{part}", *flags]
    process = subprocess.run(command, env=env | variables, check=False, capture_output=True, text=True, timeout=120)
    assert (process.returncode, process.stdout) == (2, ""), process.stderr
    assert "Traceback" not in process.stderr
    assert len(process.stderr.splitlines()) == 1, process.stderr
    return process.stderr


def test_up_has_the_settings_of_all_parts():
    assert set(UpSettings.model_fields) == SETTINGS
    assert set(ServerSettings.model_fields) == SERVER
    assert set(WorkerSettings.model_fields) == WORKER
    assert set(JobsSettings.model_fields) == SHARED


@pytest.mark.parametrize("settings", [ServerSettings, WorkerSettings, UpSettings])
def test_every_setting_has_a_panel_of_help(settings):
    names = [name for names in settings.panels().values() for name in names]
    assert sorted(set(names)) == sorted(settings.model_fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("folder", "Is a directory"),
        (b"\xff\xfe", "is not TOML in UTF-8"),
        (b"host = ", "is not TOML in UTF-8"),
        (b'token = "tokens.toml"', "unknown key 'token'; did you mean tokens?"),
        (b'redis-url = "redis://h"', "unknown key 'redis-url'; did you mean redis_url?"),
        (b"[server]\n\nprot = 1", ":3: unknown key 'prot' in [server]; did you mean port?"),
        (b"[server]\nmodel = []", ":2: unknown key 'model' in [server]; it is a setting of [worker], [up]"),
        (b"port = 1\n[sever]\nport = 1", ":2: unknown key 'sever'; sections are [server], [worker], [up]"),
        (b"worker = 1", "'worker' is a section: write [worker], and its settings below"),
        (b"qqqq = 1", "unknown key 'qqqq'; --help lists all settings"),
    ],
    ids=str,
)
def test_an_invalid_configuration_file_is_refused_by_its_name(tmp_path, content, message):
    file = tmp_path / "convlens.toml"
    match content:
        case "folder":
            file.mkdir()
        case bytes():
            file.write_bytes(content)
    error = refusal("server", CONVLENS_CONFIG=str(file))
    assert str(file) in error
    assert message in error


def test_sections_come_before_what_is_shared_and_each_value_names_its_source(tmp_path, capsys, monkeypatch):
    file = tmp_path / "convlens.toml"
    monkeypatch.setenv("CONVLENS_LEASE", "7")
    monkeypatch.setenv("CONVLENS_CONFIG", "")  # the flag sets it for this process, and this takes it back
    file.write_text(
        'redis_url = "redis://user:secret@127.0.0.1:1/0"\nlog_level = "ERROR"\nlease = 9\n'
        '[server]\nlog_level = "DEBUG"\nport = 7\n[worker]\nmodel = ["null=null"]\n[up]\nport = 8\n'
    )
    with pytest.raises(SystemExit) as ended:
        read_settings(ServerSettings, "convlens server", ["--show-config", "--config", str(file), "--host", "::1"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    rows = {name: rest for name, *rest in map(str.split, shown.splitlines())}
    assert rows["redis_url"] == ["redis://user:***@127.0.0.1:1/0", f"{file}:1"]
    assert rows["log_level"] == ["DEBUG", f"{file}:5", "[server]"]
    assert rows["port"] == ["7", f"{file}:6", "[server]"]
    assert rows["lease"] == ["7", "CONVLENS_LEASE"]
    assert rows["host"] == ["::1", "--host"]
    assert rows["max_images"] == ["64", "default"]
    assert "secret" not in shown
    monkeypatch.setenv("CONVLENS_CONFIG", str(file))
    up = read_settings(UpSettings, "convlens up", [])
    assert (up.port, up.model, up.log_level) == (8, ["null=null"], "DEBUG")
    assert read_settings(WorkerSettings, "convlens worker", []).log_level == "ERROR"


def test_up_refuses_sections_that_disagree(tmp_path, capsys, monkeypatch):
    (tmp_path / "convlens.toml").write_text("[server]\nlease = 1\n[worker]\nlease = 2\n")
    monkeypatch.setenv("CONVLENS_CONFIG", str(tmp_path / "convlens.toml"))
    with pytest.raises(SystemExit):
        read_settings(UpSettings, "convlens up", [])
    assert "'lease' differs in [server] and [worker]" in capsys.readouterr().err
    assert read_settings(WorkerSettings, "convlens worker", []).lease == 2


@pytest.mark.parametrize("part", ["worker", "local.up"])
def test_each_part_refuses_a_missing_file_and_a_mistyped_variable(part, tmp_path):
    assert f"cannot read {tmp_path / 'gone.toml'}: No such file" in refusal(
        part, CONVLENS_CONFIG=str(tmp_path / "gone.toml")
    )
    assert "did you mean CONVLENS_TOKENS?" in refusal(part, CONVLENS_TOKEN_FILE="tokens.toml")


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("CONVLENS_TOKEN_FILE", "did you mean CONVLENS_TOKENS?"),
        ("CONVLENS_TOKENS_FILE", "did you mean CONVLENS_TOKENS?"),
        ("CONVLENS_TLS_CERTIFICATE", "did you mean CONVLENS_TLS_CERT?"),
        ("CONVLENS_CONFIGURATION", "--help lists all settings"),
        ("convlens_maxjobs", "did you mean CONVLENS_MAX_JOBS?"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_most_similar_name(variable, message):
    error = refusal("server", **{variable: "1"})
    assert f"unknown variable {variable}; " in error
    assert message in error


@pytest.mark.parametrize(
    ("part", "variable"),
    [
        ("server", "CONVLENS_TOKENS"), ("server", "CONVLENS_TLS_CERT"), ("server", "CONVLENS_TLS_CLIENT_CA"),
        ("server", "CONVLENS_CONFIG"), ("server", "CONVLENS_PAYLOAD_DIR"), ("server", "CONVLENS_HOST"),
        ("server", "CONVLENS_REDIS_URL"), ("worker", "CONVLENS_PAYLOAD_DIR"), ("local.up", "CONVLENS_TLS_DIR"),
        ("local.up", "CONVLENS_DATA_DIR"), ("local.up", "CONVLENS_TOKENS"),
    ],
)  # fmt: skip
def test_an_empty_variable_is_refused(part, variable):
    error = refusal(part, **{variable: ""})
    assert variable.removeprefix("CONVLENS_").lower().replace("_", "-") in error.lower()


@pytest.mark.parametrize("value", ["null", "None"])
@pytest.mark.parametrize("settings", [ServerSettings, WorkerSettings, UpSettings])
def test_null_and_none_are_ordinary_values(settings, value):
    for name, field in settings.model_fields.items():
        if field.default is not None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if name == "tenant_rate":
            with pytest.raises(SystemExit):
                read_settings(settings, "convlens", [flag, value])
        else:
            for arguments in ([flag, value], [f"{flag}={value}"], [flag, "first", flag, value]):
                assert str(getattr(read_settings(settings, "convlens", arguments), name)) == value


@pytest.mark.parametrize("flag", ["--tokens", "--tls-cert", "--tls-key", "--tls-client-ca"])
def test_null_does_not_turn_tokens_or_certificates_off(flag, redis_url):
    command = [sys.executable, "-m", "convlens.server", "--port=0", "--redis-url", redis_url, flag, "null"]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout) == (1, "")
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("part", ["server", "worker"])
def test_a_missing_file_in_the_redis_url_is_reported_without_the_password(part):
    error = refusal(part, CONVLENS_REDIS_URL="rediss://:secret@127.0.0.1:1/0?ssl_ca_certs=/gone/ca.pem")
    assert "--redis-url" in error
    assert "ssl_ca_certs: there is no /gone/ca.pem" in error
    assert "secret" not in error


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("/0?bogus=1", "unknown option 'bogus'; allowed: client_name, "),
        ("/0?decode_responses=true", "unknown option 'decode_responses'"),
        ("/0?ssl_ca_certs=/etc/hostname", "unknown option 'ssl_ca_certs'"),  # an option of rediss:// only
        ("/0?password=secret", "unknown option 'password'"),
        ("/?db=3", "give it as the path, such as /0"),
        ("/0?max_connections=abc", "max_connections"),
        ("/abc", "path that is no number"),
        ("/1/2", "path that is no number"),
    ],
)
def test_a_redis_url_that_redis_py_would_misread_is_refused(rest, message, capsys):
    with pytest.raises(SystemExit):
        read_settings(WorkerSettings, "convlens worker", ["--redis-url", f"redis://:secret@127.0.0.1:1{rest}"])
    error = capsys.readouterr().err
    assert error.startswith("convlens worker: --redis-url: ")
    assert message in error
    assert "secret" not in error


@pytest.mark.parametrize("rest", ["", "/", "/3", "/0?protocol=3&socket_keepalive=true", "/0?max_connections=50"])
def test_a_valid_redis_url_is_accepted(rest):
    url = f"redis://:secret@127.0.0.1:1{rest}"
    assert read_settings(WorkerSettings, "convlens worker", ["--redis-url", url]).redis_url == url


@pytest.mark.parametrize("part", ["server", "worker"])
def test_an_unknown_log_level_is_refused(part):
    assert "--log-level" in refusal(part, "--log-level", "loud")


def test_a_published_server_requires_tokens_or_client_certificates(tmp_path, own_valkey):
    error = refusal("server", CONVLENS_PUBLISH="0.0.0.0", CONVLENS_HOST="0.0.0.0")
    assert "--publish: " in error
    assert "give tokens or tls_client_ca" in error
    (tmp_path / "tokens.toml").touch()
    for more in ({"publish": "0.0.0.0", "tokens": tmp_path / "tokens.toml"}, {"publish": "127.0.0.1"}):
        with running(tmp_path, own_valkey, host="127.0.0.1", **more) as service:
            assert service.server()[1]


def test_one_file_serves_all_parts_and_variables_of_other_programs_are_ignored(tmp_path, start_service, monkeypatch):
    file = tmp_path / "convlens.toml"
    file.write_text('model = ["null=null"]\nmax_batch_size = 2\nmax_images = 3\ntls_dir = "tls"\nservers = 2\n')
    for name, value in {
        "CONVLENS_CONFIG": str(file),
        "CONVLENS_TOKEN": "the client's",
        "CONVLENS_SERVER": "elsewhere:50051",
        "CONVLENS_SERVICE_HOST": "10.0.0.1",  # set by Kubernetes for a service named convlens
        "CONVLENS_SERVER_PORT_50051_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    service = start_service()
    service.worker()
    assert service.server()[1]
