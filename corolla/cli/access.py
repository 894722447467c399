"""Which relay to ask, with which token: from options, environment and the configuration file, in that order.

Reads one file, and sends nothing. Does not know whether the relay is there.
"""

import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from corolla.address import peer_url
from corolla.cli.exits import WrongUsage
from schema.credentials import parse_credential
from schema.errors import InvalidRequest, Unauthorized

URL_VARIABLE = "COROLLA_URL"
TOKEN_VARIABLE = "COROLLA_API_KEY"
_KEYS = ("url", "token", "model")
_NOT_THE_OWNER = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Access:
    """A relay, and what it is asked with."""

    url: str
    """Its base, such as `https://relay.example`: without `/v1`, and without a slash at its end."""
    token: str | None
    """None: none was given. A relay that is open to everybody shows its swarm all the same."""
    model: str | None = None
    """The configuration's."""

    def __repr__(self) -> str:
        return f"Access({self.url}, token hidden)"


class _Layer(NamedTuple):
    """What one source says."""

    url: str | None
    token: str | None


def find_access(
    url: str | None, token: str | None, environment: Mapping[str, str], warn: Callable[[str], None]
) -> Access:
    """Where to ask and as whom. `url`, `token`: as the options say. `warn`: told what is unsafe.

    Raises:
        WrongUsage: nothing says where the relay is, or something that is said cannot be used.
    """
    configured = read_configuration(configuration_file(environment), warn)
    layers = [
        _Layer(url, token),
        _Layer(environment.get(URL_VARIABLE), environment.get(TOKEN_VARIABLE)),
        _Layer(configured.get("url"), configured.get("token")),
    ]
    found_url, found_token = _pair(layers)
    if not found_url:
        raise WrongUsage(
            "which relay? Give --token with a client's token, which carries its relay's address, or --url; "
            f"or set {TOKEN_VARIABLE} or {URL_VARIABLE}, or write them into the configuration file"
        )
    return Access(base_url(found_url), found_token, configured.get("model"))


def _pair(layers: list[_Layer]) -> tuple[str | None, str | None]:
    """The address and the token.

    A token is not sent to an address that was said less directly than the token itself: the one that it
    carries goes before that. So a token on the command line never goes to the relay of the configuration.
    """
    url: str | None = None
    token: str | None = None
    for layer in layers:
        url = url or layer.url or None
        if layer.token:
            token = layer.token.strip()
            carried = _address_in(token)
            url = url or carried
            break
    return url or next((layer.url for layer in layers if layer.url), None), token


def _address_in(token: str) -> str | None:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise WrongUsage("this token is damaged: paste it whole, and nothing else")
    try:
        credential = parse_credential(token)
    except Unauthorized as error:
        raise WrongUsage(error.message) from error
    if credential.kind == "volunteer":
        raise WrongUsage(
            "this is a volunteer's token; asking needs a client's token, which begins with "
            "'corolla-client.': the relay's operator makes one"
        )
    return credential.relay_url or None


def base_url(text: str) -> str:
    """A relay's address as people write it, without what clients of OpenAI's API put behind it.

    Raises:
        WrongUsage: it is no address of HTTP.
    """
    given = text.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        peer_url(given)
    except InvalidRequest as error:
        raise WrongUsage(error.message) from error
    if not given.lower().startswith(("http://", "https://")):
        raise WrongUsage(f"{text!r} is not an address of HTTP: give one like https://relay.example")
    return given


def configuration_file(environment: Mapping[str, str]) -> Path | None:
    """Where the configuration is looked for; None for users without a home."""
    base, home = environment.get("XDG_CONFIG_HOME", ""), environment.get("HOME", "")
    if not (base or home):
        return None
    return Path(base or Path(home) / ".config") / "corolla" / "config.toml"


def read_configuration(file: Path | None, warn: Callable[[str], None]) -> dict[str, str]:
    """What the file says; nothing when it is not there.

    Raises:
        WrongUsage: it cannot be read, or says something that is not known.
    """
    if file is None:
        return {}
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            values: dict[str, Any] = tomllib.load(opened)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:  # of TOML and of UTF-8
        raise WrongUsage(f"{file} cannot be read: {error}") from error
    for name, value in values.items():
        if name not in _KEYS or not isinstance(value, str):
            raise WrongUsage(
                f"{file}: {name!r} is not understood; it may say {', '.join(_KEYS)}, each a text"
            )
    if "token" in values and os.name == "posix" and mode & _NOT_THE_OWNER:
        warn(f"{file} holds a token and others may read it: chmod 600 {file}")
    return values
