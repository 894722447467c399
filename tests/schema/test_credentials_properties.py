"""Any text is a token or a named error."""

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from schema.credentials import MAX_TOKEN_CHARS, Credential, TokenKind, parse_credential
from schema.errors import Unauthorized
from tests.schema.outcomes import peak_bytes, result_or_refusal

NAMES = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_", min_size=1, max_size=43)
TOKENS = st.builds(Credential, st.sampled_from(get_args(TokenKind)), NAMES, NAMES, st.text(max_size=60))
TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)
PARTS = st.builds(
    "corolla-{}.{}.{}.{}".format, st.sampled_from(["volunteer", "client", "x", ""]), TEXT, NAMES, TEXT
)


@given(TOKENS)
def test_round_trip(token: Credential) -> None:
    assert parse_credential(str(token)) == token


@given(TEXT | PARTS)
def test_any_text_is_a_token_or_is_unauthorized(text: str) -> None:
    assert isinstance(result_or_refusal(lambda: parse_credential(text)), Credential | Unauthorized)


@given(TOKENS, st.data())
def test_any_changed_token_is_a_token_or_is_unauthorized(token: Credential, data: st.DataObject) -> None:
    text = str(token)
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(st.text(max_size=2)) + text[at + data.draw(st.integers(0, 5)) :]
    assert isinstance(result_or_refusal(lambda: parse_credential(changed)), Credential | Unauthorized)


@given(TOKENS.filter(lambda token: len(token.secret) > 8))
def test_representation_hides_the_secret(token: Credential) -> None:
    assert token.secret in token.id or token.secret not in repr(token)


@given(TEXT)
def test_what_is_taken_is_written_as_it_was(text: str) -> None:
    token = result_or_refusal(lambda: parse_credential(f"corolla-client.id.secret.{text}"))
    assert isinstance(token, Unauthorized) or parse_credential(str(token)) == token


def test_too_long_a_text_costs_nothing() -> None:
    text = "." * (MAX_TOKEN_CHARS * 1000)
    assert peak_bytes(lambda: parse_credential(text)) < 64 * 1024
