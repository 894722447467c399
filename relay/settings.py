"""Every knob of the relay, once: read from the environment, checked, frozen.

Knows names, defaults and ranges. Does not know what the values are used for, and opens nothing.
`SETTINGS` is the table behind it: one row a variable, which `Settings.documentation()` prints.
"""

import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from relay.database import default_database_url, resolve_database_url
from relay.errors import SettingsError
from relay.tables import MAX_REPLICA_CHARS
from schema.credentials import parse_credential
from schema.errors import Unauthorized
from schema.limits import MAX_MODEL_NAME_CHARS
from schema.protocol import MAX_FRAME_BYTES
from schema.routes import SECRET_BYTES
from schema.tokens import MOST_DAYS as MOST_USAGE_DAYS

LogFormat = Literal["json", "text"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable; its value becomes the field of `Settings` with its name in lower case."""

    variable: str
    default: str
    """In words."""
    meaning: str
    read: Callable[[str], object]
    """The value of a text. Raises ValueError with the remedy."""
    secret: bool = False
    """Whether error messages must not repeat the value."""


def _new_replica_name() -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:32]
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The relay's configuration. `SETTINGS` says what each field means."""

    host: str = "127.0.0.1"
    port: int = 8000
    database_url: str = field(default_factory=default_database_url, repr=False)
    """An SQLAlchemy URL with an async driver; a SQLite path in it is absolute."""
    relay_secret: bytes | None = field(default=None, repr=False)
    public_url: str = "http://127.0.0.1:8000"
    """Without a slash at its end."""
    open_chat: bool = False
    open_join: bool | None = None
    """None: as `open_chat`."""
    models: tuple[str, ...] = ("corolla-demo",)
    heartbeat_seconds: float = 4.0
    probe_seconds: float = 120.0
    route_seconds: int = 3600
    replica: str = field(default_factory=_new_replica_name)
    log_format: LogFormat = "text"
    log_level: LogLevel = "INFO"
    queue_bytes: int = 64 * 1024 * 1024
    request_seconds: float = 600.0
    head_replies: int = 128
    waiting_replies: int = 256
    token_replies: int = 256
    waiting_seconds: float = 60.0
    rebalance_seconds: float = 30.0
    bus_url: str | None = field(default=None, repr=False)
    """None: there is one replica."""
    drain_seconds: float = 25.0
    files: str = field(default_factory=lambda: _files(_DEFAULT_FILES))
    """A folder's full path, or `s3://bucket/prefix`."""
    s3_endpoint: str | None = None
    """None: that of the environment, or Amazon's."""
    file_bytes: int = 200 * 1024 * 1024
    token_file_bytes: int = 10 * 1024**3
    token_batches: int = 100
    usage_days: int = MOST_USAGE_DAYS
    lines_per_head: int = 16
    private_webhooks: bool = False
    pages: int = 4096
    token_pages: int = 256
    awake_seconds: float = 0.0
    """0: it sleeps whenever there is nothing to do."""
    keep_seconds: float = 60.0
    kept_replies: int = 4096
    kept_bytes: int = 64 * 1024 * 1024
    petals_token: str | None = field(default=None, repr=False)
    """None: nobody asks without a token of their own."""
    repository: str | None = None
    """None: whoever joins has to know it."""

    @property
    def lets_join(self) -> bool:
        """Whether whoever may chat may have a volunteer's token made."""
        return self.open_chat if self.open_join is None else self.open_join

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> "Settings":
        """The settings that `env` gives; an unset or empty variable means its default.

        Raises:
            SettingsError: a value that cannot be used; the message names variable, value and remedy.
        """
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            text = env.get(setting.variable, "").strip()
            if text:
                values[setting.variable.lower()] = _read(setting, text)
        settings = cls(**values)
        if "public_url" in values:
            return settings
        return replace(settings, public_url=_url_of(settings.host, settings.port))

    @staticmethod
    def documentation() -> str:
        """The settings as a table in Markdown."""
        rows = [f"| `{one.variable}` | {one.default} | {one.meaning} |" for one in SETTINGS]
        return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _read(setting: Setting, text: str) -> object:
    try:
        return setting.read(text)
    except ValueError as error:
        shown = "(value hidden)" if setting.secret else repr(text)
        raise SettingsError(f"{setting.variable} is {shown}: {error}") from error


def _url_of(host: str, port: int) -> str:
    named = _ANY_ADDRESS.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{named}:{port}"


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"give a whole number from {low} to {high}")
        return int(text)

    return read


def _client_token(text: str) -> str:
    try:
        kind = parse_credential(text).kind
    except Unauthorized as error:
        raise ValueError("give a token that `python -m relay token create --kind client` prints") from error
    if kind != "client":
        raise ValueError("give a client's token: this one is a volunteer's")
    return text


def _seconds(low: float, high: float) -> Callable[[str], float]:
    remedy = f"give a number of seconds from {low:g} to {high:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(remedy) from error
        if not low <= value <= high:
            raise ValueError(remedy)
        return value

    return read


def _choice(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        found = next((choice for choice in choices if choice.lower() == text.lower()), None)
        if found is None:
            raise ValueError(f"give one of {', '.join(choices)}")
        return found

    return read


def _yes_or_no(text: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise ValueError("give 'true' or 'false'")
    return text.lower() in _YES


def _host(text: str) -> str:
    if re.search(r"[\s/\[\]]", text):
        raise ValueError("give an address to listen on, such as 127.0.0.1, 0.0.0.0 or ::")
    return text


def _secret(text: str) -> bytes:
    remedy = f"give {2 * SECRET_BYTES} hex digits, as `openssl rand -hex {SECRET_BYTES}` prints them"
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise ValueError(remedy) from error
    if len(value) != SECRET_BYTES:
        raise ValueError(remedy)
    return value


def read_public_url(text: str) -> str:
    """A relay's base URL, without a slash at its end. Raises ValueError with the remedy."""
    remedy = "give the address that volunteers reach, such as https://relay.example"
    try:
        parts = urlsplit(text)
        found = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(remedy) from error
    if not found or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ValueError(remedy)
    if "@" in parts.netloc or re.search(r"\s", text):
        raise ValueError("give an address without a user name, a password or spaces")
    return text.rstrip("/")


_MODEL_NAME = r"[\w ./:@+()-]+"
"""More than a Hub id may have, but no `=`, which parts a name from its folder, and no dots of an example."""


def _models(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError("give model names with commas between them, each once")
    if max(map(len, names)) > MAX_MODEL_NAME_CHARS:
        raise ValueError(f"a model's name has at most {MAX_MODEL_NAME_CHARS} characters")
    if not all(re.fullmatch(_MODEL_NAME, name) for name in names):
        raise ValueError(
            "give Hub ids, such as meta-llama/Llama-3.1-8B-Instruct, or names of letters, digits, spaces "
            "and any of ._-/:@+()"
        )
    return tuple(names)


def _bus(text: str) -> str:
    remedy = "give nats://host:4222, or several of one cluster with commas between them"
    servers = [server.strip() for server in text.split(",")]
    for server in servers:
        try:
            parts = urlsplit(server)
            found = bool(parts.hostname) and parts.port != 0
        except ValueError as error:
            raise ValueError(remedy) from error
        if not found or parts.scheme not in ("nats", "tls"):
            raise ValueError(remedy)
    return ",".join(servers)


_DEFAULT_FILES = "corolla-files"


def _files(text: str) -> str:
    if "://" not in text:
        return str(Path(text).expanduser().absolute())
    parts = urlsplit(text)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("give a folder, or s3://bucket/prefix")
    return text.rstrip("/")


def _s3_endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("give the address of an S3-compatible server, such as https://s3.example")
    return text.rstrip("/")


def _repository(text: str) -> str:
    # It becomes a part of commands that people paste into their shells.
    if not re.fullmatch(r"https://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~-]+)+", text):
        raise ValueError(
            "give the https:// address of a Git repository, such as https://git.example/corolla.git"
        )
    return text


def _replica(text: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9._-]{{1,{MAX_REPLICA_CHARS}}}", text):
        raise ValueError(f"give at most {MAX_REPLICA_CHARS} letters, digits, dots, dashes and underscores")
    return text


SETTINGS: tuple[Setting, ...] = (
    Setting("HOST", "`127.0.0.1`", "Address to listen on; `0.0.0.0` is every one.", _host),
    Setting("PORT", "`8000`", "Port to listen on; 0 takes a free one.", _integer(0, 65535)),
    Setting(
        "DATABASE_URL",
        "the file `corolla.sqlite3` in the working directory",
        "Where tokens, models and span coverage are kept: `sqlite:///path` or `postgresql://…`. "
        "All replicas must share it.",
        resolve_database_url,
        secret=True,
    ),
    Setting(
        "RELAY_SECRET",
        "made once and kept in the database",
        f"{2 * SECRET_BYTES} hex digits that sign routes; the same for all replicas.",
        _secret,
        secret=True,
    ),
    Setting(
        "PUBLIC_URL",
        "`http://HOST:PORT`",
        "Address under which volunteers reach the relay; it is written into tokens.",
        read_public_url,
    ),
    Setting("OPEN_CHAT", "`false`", "Whether the chat page works without signing in.", _yes_or_no),
    Setting(
        "OPEN_JOIN",
        "as `OPEN_CHAT`",
        "Whether whoever may chat may have tokens of volunteers made, so that his machines can join.",
        _yes_or_no,
    ),
    Setting("MODELS", "`corolla-demo`", "Models that the swarm serves, with commas between them.", _models),
    Setting(
        "HEARTBEAT_SECONDS",
        "`4`",
        "Seconds between heartbeats; a peer that misses three is gone.",
        _seconds(0.05, 60),
    ),
    Setting(
        "PROBE_SECONDS",
        "`120`",
        "Seconds after which a volunteer that serves has to pass another probe.",
        _seconds(0.05, 24 * 3600),
    ),
    Setting(
        "ROUTE_SECONDS",
        "`3600`",
        "Lifetime of a signed route, in whole seconds.",
        _integer(1, 7 * 24 * 3600),
    ),
    Setting("REPLICA", "host name, process id and a random part", "Name of this relay process.", _replica),
    Setting(
        "LOG_FORMAT",
        "`text`",
        "`json`: one object a line; `text`: for people.",
        _choice(*get_args(LogFormat)),
    ),
    Setting("LOG_LEVEL", "`INFO`", "Least important level to log.", _choice(*get_args(LogLevel))),
    Setting(
        "QUEUE_BYTES",
        f"`{64 * 1024 * 1024}`",
        f"Bytes that may wait for one peer; at least one largest frame, {MAX_FRAME_BYTES}.",
        _integer(MAX_FRAME_BYTES, 2**40),
    ),
    Setting("REQUEST_SECONDS", "`600`", "Seconds that one reply may take.", _seconds(1, 24 * 3600)),
    Setting(
        "HEAD_REPLIES",
        "`128`",
        "Replies that this relay process has one head make at once; more wait for their turn.",
        _integer(1, 100_000),
    ),
    Setting("WAITING_REPLIES", "`256`", "Replies that may wait for a head with room.", _integer(0, 100_000)),
    Setting(
        "TOKEN_REPLIES",
        "`256`",
        "Replies that one client's token may have made, or wait for, at once.",
        _integer(1, 100_000),
    ),
    Setting(
        "WAITING_SECONDS", "`60`", "Seconds that a reply may wait for a head with room.", _seconds(0, 3600)
    ),
    Setting(
        "REBALANCE_SECONDS",
        "`30`",
        "Seconds between two looks whether a volunteer had better hold other blocks.",
        _seconds(0.05, 24 * 3600),
    ),
    Setting(
        "BUS_URL",
        "none: there is one replica",
        "The bus between replicas: `nats://…`, or several servers of one cluster with commas between them. "
        "Needs the extra `nats`.",
        _bus,
        secret=True,
    ),
    Setting(
        "DRAIN_SECONDS",
        "`25`",
        "Seconds that requests may take to their end after the relay was told to stop.",
        _seconds(0, 3600),
    ),
    Setting(
        "FILES",
        f"the folder `{_DEFAULT_FILES}` in the working directory",
        "Where uploaded files and those of batches are kept: a folder, or `s3://bucket/prefix`, with the "
        "extra `s3`. All replicas must share it.",
        _files,
    ),
    Setting(
        "S3_ENDPOINT",
        "Amazon's",
        "The S3-compatible server of `FILES`. Keys and region are in `AWS_ACCESS_KEY_ID`, "
        "`AWS_SECRET_ACCESS_KEY` and `AWS_REGION`.",
        _s3_endpoint,
    ),
    Setting(
        "FILE_BYTES", f"`{200 * 1024 * 1024}`", "Bytes that an uploaded file may have.", _integer(1, 2**40)
    ),
    Setting(
        "TOKEN_FILE_BYTES",
        f"`{10 * 1024**3}`",
        "Bytes that the files of one token may have together, each at least 4096; more are not taken.",
        _integer(1, 2**50),
    ),
    Setting(
        "TOKEN_BATCHES",
        "`100`",
        "Batches of one token that have not ended; more are not taken.",
        _integer(1, 100_000),
    ),
    Setting(
        "USAGE_DAYS",
        f"`{MOST_USAGE_DAYS}`",
        "Days of UTC, today included, for which it is kept what each token used; what is older is removed. "
        f"The API shows at most the last {MOST_USAGE_DAYS}.",
        _integer(1, 100 * 366),
    ),
    Setting(
        "LINES_PER_HEAD",
        "`16`",
        "Lines of batches that run at once for each volunteer that writes replies, while nobody else asks; "
        "0: this replica answers none.",
        _integer(0, 1024),
    ),
    Setting(
        "PRIVATE_WEBHOOKS",
        "`false`",
        "Whether batches may name webhooks on private networks and on this machine.",
        _yes_or_no,
    ),
    Setting(
        "PAGES",
        "`4096`",
        "WebSockets of chat pages and of Petals' scripts that one replica keeps open.",
        _integer(1, 1_000_000),
    ),
    Setting(
        "TOKEN_PAGES",
        "`256`",
        "How many of them may be of one token and its keys or, where nobody signs in, of one address.",
        _integer(1, 1_000_000),
    ),
    Setting(
        "AWAKE_SECONDS",
        "`0`",
        "For how long after a decode step the relay awaits the next one without sleeping, where they come as "
        "close as that. `0.01` saves volunteers in one room a tenth of a millisecond at every hop, and keeps "
        "a processor core busy while they write replies; `0`: it sleeps.",
        _seconds(0, 1),
    ),
    Setting(
        "KEEP_SECONDS",
        "`60`",
        "Seconds that a page's reply is kept for when the page has gone: under way it is written on, "
        "finished it can still be fetched.",
        _seconds(0.05, 3600),
    ),
    Setting(
        "KEPT_REPLIES",
        "`4096`",
        "Replies that are kept for pages that have gone; who has most of them makes room.",
        _integer(1, 1_000_000),
    ),
    Setting(
        "KEPT_BYTES",
        f"`{64 * 1024 * 1024}`",
        "Bytes that the texts of those may have together.",
        _integer(0, 2**40),
    ),
    Setting(
        "PETALS_TOKEN",
        "none: they are refused",
        "A client's token for scripts of Petals' chat (`/api/v1/generate`, `/api/v2/generate`) that send "
        "none. Whoever reaches the relay can use it there.",
        _client_token,
        secret=True,
    ),
    Setting(
        "REPOSITORY",
        "none: whoever joins has to know it",
        "The Git repository that volunteers install Corolla from, `https://…`: the page Join makes commands "
        "of it.",
        _repository,
    ),
)
"""Every variable, in the order in which the documentation lists them."""
