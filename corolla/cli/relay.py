"""Asking the relay over HTTP: what it refuses becomes an error with a remedy, or is asked again.

Does not know what is asked for.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx
import msgspec

from corolla.address import proxy_for
from corolla.cli.access import Access
from corolla.cli.exits import CommandError, Refused, Unreachable, WrongUsage
from schema.errors import CorollaError, all_errors

CONNECT_SECONDS = 10.0
JSON_LINES = "application/jsonl"
KEY_HEADER = "Idempotency-Key"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""An answer that is read as a whole. Results of batches are not: they go to a file as they come."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts where the relay does not say when to come back: twice as long each time."""
LONGEST_WAIT_SECONDS = 3600.0
"""If the relay says to come back even later, nobody waits for it."""
_PASSING = frozenset({429, 502, 503, 504})
"""Statuses after which asking again may help, even when the relay does not say when."""

_REMEDIES = {
    "unauthorized": "give a client's token with --token or COROLLA_API_KEY; the relay's operator makes one: "
    "`python -m relay token create --kind client`",
    "forbidden": "this token may not do that: ask the relay's operator for a client's token",
    "context_length_exceeded": "send fewer words; in a conversation, /new begins another one",
    "model_unavailable": "`corolla swarm` shows who is there and what is missing",
}
"""By error code, what to do here; the relay's own words come first."""


NO_SUCH_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be."""


class _ErrorDetail(msgspec.Struct):
    """As little of schema.api.ErrorDetail as other servers of OpenAI's API send too."""

    message: str
    code: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and how often to ask again."""

    retries: int = 0
    silence_seconds: float = 600.0
    """The longest that a relay which was asked may say nothing. It ends replies itself after 600 s."""


class Relay:
    """One relay. Leaving its `with` block closes the connections to it."""

    def __init__(
        self,
        access: Access,
        patience: Patience,
        tell: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`tell`: told why it waits."""
        self.access = access
        self._patience = patience
        self._tell = tell
        self._sleep = sleep
        self._client = self._new_client()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def hang_up(self) -> None:
        """Drop every connection: what was being answered was interrupted, and nobody reads the rest."""
        self._client.close()
        self._client = self._new_client()

    def with_retries(self, at_least: int) -> "Relay":
        """The same relay, over the same connections, asked again more often."""
        steadfast = copy(self)
        retries = max(at_least, self._patience.retries)
        steadfast._patience = replace(self._patience, retries=retries)
        return steadfast

    def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """The body of an answer. Raises CommandError."""
        with self.answer("GET", path, params=dict(query or {})) as response:
            return _read(response)

    def post(self, path: str, body: Mapping[str, Any], key: str | None = None) -> bytes:
        """The body of the answer to one in JSON. `key`: see `_keyed`. Raises CommandError."""
        with self.answer("POST", path, json=dict(body), headers=_keyed(key)) as response:
            return _read(response)

    def upload(self, path: str, fields: Mapping[str, str], name: str, file: BinaryIO, key: str) -> bytes:
        """The body of the answer to a form with a file. `key`: see `_keyed`. Raises CommandError."""
        form = {"data": dict(fields), "files": {"file": (name, file, JSON_LINES)}}
        with self.answer("POST", path, headers=_keyed(key), **form) as response:
            return _read(response)

    @contextmanager
    def answer(self, method: str, path: str, **content: Any) -> Iterator[httpx.Response]:
        """An answer whose body is still to be read. `content`: see httpx.Client.build_request.

        Raises:
            Refused: the relay has said no. Unreachable: it has said nothing, or not all.
        """
        response = self._patiently(lambda: self._ask(method, path, content))
        try:
            yield response
        except httpx.RequestError as error:
            raise Unreachable(
                f"the answer of {self.access.url} broke off ({_cause(error)}): ask again"
            ) from error
        finally:
            response.close()

    def _patiently(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        for attempt in range(self._patience.retries):
            try:
                return ask()
            except CommandError as error:
                pause = error.retry_after if error.retry_after is not None else _pause(attempt)
                if not error.can_be_repeated or pause > LONGEST_WAIT_SECONDS:
                    raise
                which = f"{attempt + 1} of {self._patience.retries}"
                self._tell(f"{error.message}\ntrying again in {pause:g} s ({which})")
                self._sleep(pause)
        return ask()

    def _ask(self, method: str, path: str, content: Mapping[str, Any]) -> httpx.Response:
        try:
            request = self._client.build_request(method, self.access.url + path, **content)
        except httpx.InvalidURL as error:
            raise WrongUsage(f"{self.access.url!r} is not a relay's address: {error}") from error
        except UnicodeEncodeError as error:
            raise WrongUsage(f"what is asked holds bytes that are no text: {error.reason}") from error
        try:
            response = self._client.send(request, stream=True)
        except httpx.RequestError as error:
            raise self._unreachable(error, request) from error
        if response.is_success:
            return response
        try:
            raise _refusal(response, _read(response))
        except httpx.RequestError as error:
            raise self._unreachable(error, request) from error
        finally:
            response.close()

    def _unreachable(self, error: httpx.RequestError, request: httpx.Request) -> Unreachable:
        unreachable = Unreachable(
            f"no answer from {self.access.url} ({_cause(error)}): is the address right, and is the relay up?"
        )
        was_not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        unreachable.can_be_repeated = was_not_sent or request.method == "GET" or KEY_HEADER in request.headers
        return unreachable

    def _new_client(self) -> httpx.Client:
        token = self.access.token
        try:
            return httpx.Client(
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=httpx.Timeout(self._patience.silence_seconds, connect=CONNECT_SECONDS),
                trust_env=proxy_for(self.access.url) is True,
            )
        except (ValueError, ImportError) as error:  # SOCKS needs another package
            raise WrongUsage(f"the proxy that the environment names cannot be used: {error}") from error


def _keyed(key: str | None) -> dict[str, str]:
    """With an Idempotency-Key a request may be sent again though the relay may have had it already."""
    return {} if key is None else {KEY_HEADER: key}


def refused_by(raw: bytes, status: int | None = None) -> Refused | None:
    """The error that a JSON body holds; None when it holds none. `status`: of HTTP; else the error's own."""
    try:
        detail = msgspec.json.decode(raw, type=_ErrorBody).error
    except NO_SUCH_JSON:
        return None
    if detail is None:
        return None
    if status is None:
        status = _status_of(detail.code)
    remedy = _REMEDIES.get(detail.code or "")
    return Refused(f"{detail.message}; {remedy}" if remedy else detail.message, status, detail.code)


def _status_of(code: str | None) -> int:
    return all_errors().get(code or "", CorollaError).http_status


def _refusal(response: httpx.Response, raw: bytes) -> Refused:
    status = response.status_code
    refused = refused_by(raw, status)
    if refused is None:
        refused = Refused(_strange(response), status)
    refused.retry_after = _retry_after(response.headers.get("Retry-After", ""))
    refused.can_be_repeated = refused.retry_after is not None or status in _PASSING
    if refused.retry_after is not None:
        refused.message += f"; try again in {refused.retry_after:g} s (--retry does so)"
    return refused


def _strange(response: httpx.Response) -> str:
    """Why an answer is none of a relay's."""
    where = response.headers.get("Location")
    if response.is_redirect and where:
        return f"{response.url} answers that it has moved to {where}: give that relay's address with --url"
    parts = urlsplit(str(response.url))
    return (
        f"{parts.scheme}://{parts.netloc} answers {response.status_code} {response.reason_phrase} to "
        f"{parts.path}, and not as a relay does: is the address right?"
    )


def _retry_after(text: str) -> float | None:
    """Seconds, of a header that holds seconds or a date (RFC 9110 section 10.2.3)."""
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _pause(attempt: int) -> float:
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(attempt, 10))


def _read(response: httpx.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise Refused(f"the answer is longer than {MAX_ANSWER_BYTES} bytes: is the address right?", 502)
        parts.append(part)
    return b"".join(parts)


def _cause(error: httpx.RequestError) -> str:
    """What went wrong, where httpx says nothing but the kind of it too."""
    return str(error) or type(error).__name__
