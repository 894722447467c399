"""relay/settings.py: what the environment says, and how it is told that it is wrong."""

import dataclasses
from pathlib import Path

import pytest

from relay.errors import SettingsError
from relay.settings import SETTINGS, Settings


def read(**environment: str) -> Settings:
    return Settings.from_environment(environment)


def test_nothing_set_gives_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read()
    assert dataclasses.replace(settings, replica="") == dataclasses.replace(Settings(), replica="")
    assert settings.database_url == f"sqlite+aiosqlite:///{tmp_path}/corolla.sqlite3"


def test_every_field_has_one_row_in_the_table() -> None:
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert fields == [setting.variable.lower() for setting in SETTINGS]


def test_the_documentation_names_every_variable() -> None:
    documentation = Settings.documentation()
    assert all(f"| `{setting.variable}` |" in documentation for setting in SETTINGS)


def test_an_empty_variable_means_its_default() -> None:
    assert read(PORT="  ").port == 8000


def test_two_processes_have_different_replica_names() -> None:
    assert read().replica != read().replica


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("HOST", "::", "::"),
        ("PORT", "0", 0),
        ("RELAY_SECRET", "ab" * 32, b"\xab" * 32),
        ("PUBLIC_URL", "https://relay.example/corolla/", "https://relay.example/corolla"),
        ("OPEN_CHAT", "Yes", True),
        ("OPEN_CHAT", "0", False),
        ("MODELS", "one/a, two ,", ("one/a", "two")),
        ("MODELS", "org/A-1.5_b,größer,my model:q4 (new)", ("org/A-1.5_b", "größer", "my model:q4 (new)")),
        ("HEARTBEAT_SECONDS", "0.5", 0.5),
        ("ROUTE_SECONDS", "60", 60),
        ("REPLICA", "relay-1", "relay-1"),
        ("LOG_FORMAT", "JSON", "json"),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("QUEUE_BYTES", "33554432", 33554432),
        ("REQUEST_SECONDS", "90", 90.0),
        ("BUS_URL", "nats://a:4222, tls://user:word@b", "nats://a:4222,tls://user:word@b"),
        ("DRAIN_SECONDS", "0", 0.0),
        ("AWAKE_SECONDS", "0.01", 0.01),
        ("FILES", "s3://bucket/prefix/", "s3://bucket/prefix"),
        ("FILES", "/some/folder/", "/some/folder"),
        ("S3_ENDPOINT", "http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("FILE_BYTES", "1024", 1024),
        ("USAGE_DAYS", "31", 31),
        ("LINES_PER_HEAD", "0", 0),
        ("PRIVATE_WEBHOOKS", "true", True),
    ],
)
def test_a_good_value_is_taken(variable: str, text: str, value: object) -> None:
    assert getattr(read(**{variable: text}), variable.lower()) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("FILES", "ftp://a/b"),
        ("FILES", "s3://"),
        ("FILES", "s3://key@bucket"),
        ("S3_ENDPOINT", "s3.example"),
        ("S3_ENDPOINT", "https://key@s3.example"),
        ("FILE_BYTES", "0"),
        ("USAGE_DAYS", "0"),
        ("LINES_PER_HEAD", "-1"),
        ("PRIVATE_WEBHOOKS", "perhaps"),
        ("HOST", "http://here"),
        ("HOST", "[::1]"),
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "²"),
        ("PUBLIC_URL", "relay.example"),
        ("PUBLIC_URL", "wss://relay.example"),
        ("PUBLIC_URL", "https://relay.example/?a=b"),
        ("PUBLIC_URL", "https://relay.example:port/"),
        ("PUBLIC_URL", "https://[relay.example/"),
        ("OPEN_CHAT", "maybe"),
        ("MODELS", ","),
        ("MODELS", "one,one"),
        ("MODELS", "x" * 201),
        ("MODELS", "\N{HORIZONTAL ELLIPSIS}"),
        ("MODELS", "my-model=/path/to/folder"),
        ("MODELS", '"quoted"'),
        ("MODELS", "one\ntwo"),
        ("MODELS", "$MODEL"),
        ("HEARTBEAT_SECONDS", "0"),
        ("HEARTBEAT_SECONDS", "nan"),
        ("HEARTBEAT_SECONDS", "soon"),
        ("ROUTE_SECONDS", "1.5"),
        ("REPLICA", "two words"),
        ("REPLICA", "x" * 65),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "LOUD"),
        ("QUEUE_BYTES", "1000"),
        ("REQUEST_SECONDS", "inf"),
        ("DRAIN_SECONDS", "-1"),
    ],
)
def test_a_bad_value_is_refused_with_variable_value_and_remedy(variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match=variable) as refusal:
        read(**{variable: text})
    message = str(refusal.value)
    assert repr(text) in message
    assert "give" in message or "at most" in message


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RELAY_SECRET", "hunter2"),
        ("RELAY_SECRET", "ab" * 31),
        ("BUS_URL", "kafka://hunter2"),
        ("BUS_URL", "nats://hunter2,"),
        ("BUS_URL", "nats://hunter2:port"),
        ("DATABASE_URL", "hunter2"),
        ("DATABASE_URL", "mysql://me:hunter2@host/base"),
        ("DATABASE_URL", "postgresql://me:hunter2@host/base?channel_binding=require"),
        ("DATABASE_URL", "postgresql://me:hunter2@host:port/base"),
        ("DATABASE_URL", "postgresql://me:hunter2@host"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "sqlite:///file?mode=ro"),
        ("DATABASE_URL", "sqlite://relative.sqlite3"),
    ],
)
def test_a_bad_secret_value_is_refused_without_repeating_it(variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match=rf"{variable} is \(value hidden\): .*(give|take)") as refusal:
        read(**{variable: text})
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_spelling_of_postgresql_is_understood(scheme: str) -> None:
    address = f"{scheme}://me:p%40ss@host:5433/base"
    assert read(DATABASE_URL=address).database_url == "postgresql+asyncpg://me:p%40ss@host:5433/base"


def test_the_sslmode_of_hosting_providers_is_understood() -> None:
    address = "postgres://me@host/base?sslmode=require"
    assert read(DATABASE_URL=address).database_url == "postgresql+asyncpg://me@host/base?ssl=require"


def test_a_relative_sqlite_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        read(DATABASE_URL="sqlite:///data/x.sqlite3").database_url
        == f"sqlite+aiosqlite:///{tmp_path}/data/x.sqlite3"
    )


def test_an_absolute_sqlite_path_stays() -> None:
    assert read(DATABASE_URL="sqlite:////var/x.sqlite3").database_url == "sqlite+aiosqlite:////var/x.sqlite3"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),
        ("::", "http://[::1]:9000"),
        ("::1", "http://[::1]:9000"),
        ("relay.local", "http://relay.local:9000"),
    ],
)
def test_the_public_url_follows_host_and_port(host: str, url: str) -> None:
    assert read(HOST=host, PORT="9000").public_url == url


def test_secrets_are_not_in_the_representation() -> None:
    settings = read(DATABASE_URL="postgresql://me:hunter2@host/base", RELAY_SECRET="ab" * 32)
    assert "hunter2" not in repr(settings)
    assert "abab" not in repr(settings)
    assert "xab" not in repr(settings)
