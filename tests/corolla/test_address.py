"""A relay's address as people write it becomes what is dialled, or is refused with a remedy."""

import pytest

from corolla.address import peer_url, proxy_for
from schema.errors import InvalidRequest


@pytest.mark.parametrize(
    ("written", "dialled"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/ws/peer"),
        ("https://relay.example", "wss://relay.example/ws/peer"),
        ("https://relay.example/", "wss://relay.example/ws/peer"),
        ("https://example.org/corolla/", "wss://example.org/corolla/ws/peer"),
        ("ws://[::1]:8000", "ws://[::1]:8000/ws/peer"),
        ("wss://relay.example:444", "wss://relay.example:444/ws/peer"),
    ],
)
def test_an_address_becomes_that_of_the_peers_endpoint(written: str, dialled: str) -> None:
    assert peer_url(written) == dialled


@pytest.mark.parametrize(
    "written",
    [
        "",
        "relay.example",
        "relay.example:8000",
        "ftp://relay.example",
        "http://",
        "http://:8000",
        "http://relay.example:0",
        "http://relay.example:99999",
        "http://relay.example:port",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(InvalidRequest, match=r"https://relay\.example"):
        peer_url(written)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidRequest, match="leave them out") as caught:
        peer_url("https://me:hunter2@relay.example")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("here", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_no_proxy_is_asked_for_this_very_machine(here: str) -> None:
    assert proxy_for(f"ws://{here}:8000/ws/peer") is None


@pytest.mark.parametrize("there", ["relay.example", "10.0.0.1", "[2001:db8::1]"])
def test_the_environments_proxy_is_used_for_others(there: str) -> None:
    assert proxy_for(f"wss://{there}/ws/peer") is True
