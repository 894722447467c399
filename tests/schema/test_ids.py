"""Names of things, one promise at a time."""

from hashlib import sha256

import pytest

from schema.errors import MalformedMessage
from schema.ids import (
    PeerId,
    Span,
    derive_peer_id,
    model_key,
    new_instance_key,
    new_session_id,
    peer_id_from_bytes,
    peer_id_to_bytes,
)
from schema.limits import MAX_BLOCKS


def test_session_ids_are_sixteen_bytes() -> None:
    assert len(new_session_id()) == 16


def test_session_ids_differ() -> None:
    assert new_session_id() != new_session_id()


def test_instance_keys_are_thirty_two_hex_digits() -> None:
    assert len(bytes.fromhex(new_instance_key())) == 16


def test_peer_id_round_trips() -> None:
    assert peer_id_from_bytes(peer_id_to_bytes(PeerId("0123456789abcdef"))) == "0123456789abcdef"


@pytest.mark.parametrize(
    "peer",
    ["", "0" * 15, "0" * 17, "A" * 16, "g" * 16, "0" * 15 + "\n", "\N{ARABIC-INDIC DIGIT ZERO}" * 16],
    ids=ascii,
)
def test_what_is_no_peer_id_is_refused(peer: str) -> None:
    with pytest.raises(MalformedMessage, match="lower-case hex"):
        peer_id_to_bytes(PeerId(peer))


def test_peer_id_is_the_same_after_a_reconnect() -> None:
    assert derive_peer_id("token", "instance") == derive_peer_id("token", "instance")


def test_peer_id_is_one() -> None:
    assert len(peer_id_to_bytes(derive_peer_id("token", "instance"))) == 8


@pytest.mark.parametrize(
    ("token", "instance"), [("other", "instance"), ("token", "other"), ("tokeni", "nstance")]
)
def test_peer_id_is_bound_to_token_and_instance(token: str, instance: str) -> None:
    assert derive_peer_id(token, instance) != derive_peer_id("token", "instance")


def test_model_key_is_the_head_of_a_hash() -> None:
    assert model_key("a/b-é") == sha256(b"model\0" + "a/b-é".encode()).digest()[:8]


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, MAX_BLOCKS), (MAX_BLOCKS - 1, MAX_BLOCKS)])
def test_span_within_the_limits(start: int, end: int) -> None:
    assert len(Span(start, end)) == end - start


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (0, 0), (1, 1), (2, 1), (0, MAX_BLOCKS + 1)])
def test_impossible_span_is_refused(start: int, end: int) -> None:
    with pytest.raises(MalformedMessage, match="a span needs"):
        Span(start, end)


def test_span_as_text() -> None:
    assert str(Span(3, 7)) == "3:7"
