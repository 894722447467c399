"""Tokens as text, one promise at a time."""

from hashlib import sha256

import pytest

from schema.credentials import MAX_TOKEN_CHARS, Credential, TokenKind, new_credential, parse_credential
from schema.errors import Unauthorized

TOKEN = Credential("volunteer", "id", "secret", "https://relay.example")
TEXT = "corolla-volunteer.id.secret.aHR0cHM6Ly9yZWxheS5leGFtcGxl"


def test_text_form() -> None:
    assert str(TOKEN) == TEXT


@pytest.mark.parametrize("kind", ["volunteer", "client"])
def test_new_token_round_trips(kind: TokenKind) -> None:
    token = new_credential(kind, "https://relay.example:8443/base")
    assert parse_credential(str(token)) == token


def test_new_tokens_differ() -> None:
    assert new_credential("client", "").secret != new_credential("client", "").secret


def test_secret_of_a_new_token_has_256_bits() -> None:
    assert len(new_credential("client", "").secret) == 43


def test_token_without_a_relay_round_trips() -> None:
    token = Credential("client", "id", "secret", "")
    assert parse_credential(str(token)) == token


def test_white_space_around_a_pasted_token_does_not_matter() -> None:
    assert parse_credential(f"\n {TEXT}\t\r\n") == TOKEN


def test_representation_hides_the_secret() -> None:
    token = new_credential("volunteer", "https://relay.example")
    assert token.secret not in repr(token)


def test_container_of_tokens_hides_their_secrets() -> None:
    token = new_credential("volunteer", "https://relay.example")
    assert token.secret not in str({"token": [token]})


def test_relay_stores_a_hash() -> None:
    assert TOKEN.secret_hash == sha256(b"secret").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "....",
        "volunteer.id.secret.",
        "corolla-operator.id.secret.",
        "corolla-.id.secret.",
        "Corolla-volunteer.id.secret.",
        "corolla-volunteer..secret.",
        "corolla-volunteer.id..",
        "corolla-volunteer.id.secret",
        "corolla-volunteer.id.secret..",
    ],
)
def test_what_is_no_token_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(Unauthorized, match="paste it whole"):
        parse_credential(text)


@pytest.mark.parametrize("url", ["a", "aHR0cHM6_\xe9", "aHR0 cHM6", "_w", "aHR0cHM6Ly9$"], ids=ascii)
def test_damaged_relay_address_is_refused(url: str) -> None:
    with pytest.raises(Unauthorized, match="damaged"):
        parse_credential(f"corolla-volunteer.id.secret.{url}")


@pytest.mark.parametrize("text", ["corolla-volunteer.id.s3cr3t", "corolla-volunteer.id.s3cr3t.a"])
def test_refusal_does_not_repeat_the_token(text: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        parse_credential(text)
    assert "s3cr3t" not in caught.value.message


def test_token_at_the_limit_is_taken() -> None:
    prefix = "corolla-client.id."
    assert parse_credential(prefix + "s" * (MAX_TOKEN_CHARS - len(prefix) - 1) + ".").id == "id"


def test_longer_token_is_refused() -> None:
    with pytest.raises(Unauthorized):
        parse_credential("corolla-client.id.".ljust(MAX_TOKEN_CHARS, "s") + ".")
