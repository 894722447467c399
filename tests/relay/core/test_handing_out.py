"""relay/handing_out.py and relay/rates.py: who may have which tokens made, and how often."""

from typing import Any

import pytest

from relay.handing_out import TIMES_OF_ADDRESS, TIMES_OF_ALL, HandingOut, network_of
from relay.rates import MOST_KEYS, Rate
from relay.records import TokenRecord
from relay.settings import Settings
from schema.credentials import TokenKind
from schema.errors import Forbidden, InvalidRequest, TooManyRequests
from schema.tokens import NewToken

NOW = 1_800_000_000.0


def record(id_: str, **fields: Any) -> TokenRecord:
    return TokenRecord(id_, "client", "x", NOW, None, None, **fields)


def test_so_many_have_tokens_made_from_everywhere_and_no_more() -> None:
    handing = HandingOut(Settings(open_chat=True))
    asked = NewToken(kind="volunteer")
    for number in range(TIMES_OF_ALL):
        handing.grant(None, f"10.0.{number // 250}.{number % 250}", asked, NOW)
    with pytest.raises(TooManyRequests):
        handing.grant(None, "10.1.0.0", asked, NOW)
    assert handing.grant(None, "10.1.0.0", asked, NOW + 60).parent is None


def test_an_address_that_asks_too_often_takes_nothing_from_others() -> None:
    handing = HandingOut(Settings(open_chat=True))
    asked = NewToken(kind="volunteer")
    for _ in range(TIMES_OF_ADDRESS):
        handing.grant(None, "192.0.2.1", asked, NOW)
    for _ in range(TIMES_OF_ALL):
        with pytest.raises(TooManyRequests, match="you have had"):
            handing.grant(None, "192.0.2.1", asked, NOW)
    assert handing.grant(None, "192.0.2.2", asked, NOW).parent is None


def test_the_rules_name_cause_and_remedy() -> None:
    closed = HandingOut(Settings())
    client, key = record("a"), record("b", parent="a")
    cases: list[tuple[TokenRecord | None, TokenKind]] = [
        (None, "client"),
        (client, "volunteer"),
        (client, "admin"),
        (key, "client"),
    ]
    for asker, kind in cases:
        with pytest.raises(Forbidden):
            closed.grant(asker, "", NewToken(kind=kind), NOW)
    with pytest.raises(InvalidRequest):
        closed.grant(client, "", NewToken(kind="client", expires_at=NOW), NOW)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("a socket", "a socket"),
    ],
)
def test_whoever_has_a_network_of_his_own_counts_as_one(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_rate_grows_back_and_forgets_those_who_came_first() -> None:
    rate = Rate(2, 10.0)
    for _ in range(2):
        assert rate.wait("a", 0.0) == 0
        rate.take("a", 0.0)
    assert rate.wait("a", 0.0) == pytest.approx(5.0)
    assert rate.wait("a", 5.0) == 0
    assert rate.wait("b", 0.0) == 0
    for number in range(MOST_KEYS):
        rate.take(str(number), 0.0)
    assert rate.wait("a", 0.0) == 0
