"""`python -m relay evidence ID`: what an operator is shown of a volunteer."""

import asyncio
import json
import re
import time

import pytest

from relay.__main__ import main
from relay.records import Evidence
from relay.reputation import HOUR, hour_of, project
from relay.settings import Settings
from relay.store import Store
from schema.ids import PeerId

PEER = PeerId("00000000000000aa")


@pytest.fixture
def evidence(database: str) -> list[Evidence]:
    """What a relay has written of a volunteer."""
    now = hour_of(time.time())
    seen = [Evidence(PEER, "answered", now - HOUR, 250), Evidence(PEER, "late", now, 2, worst=12.5)]

    async def write() -> None:
        async with Store.open(Settings(database_url=database)) as store:
            await store.append_evidence(seen)

    asyncio.run(write())
    return seen


def run(database: str, *arguments: str) -> int:
    return main(["evidence", *arguments], {"DATABASE_URL": database})


def test_the_score_is_shown_with_what_each_kind_adds(
    database: str, evidence: list[Evidence], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(database, PEER) == 0
    shown = capsys.readouterr()
    heading, first, answered, late = (line.split() for line in shown.out.splitlines())
    assert heading == ["KIND", "COUNT", "FOR", "AGAINST", "WORST", "SINCE", "UNTIL"]
    assert first[-5:-3] == ["3.00", "1.00"]
    assert (answered[:2], answered[3:5]) == (["answered", "250"], ["0.00", "-"])
    assert (late[:3], late[4]) == (["late", "2", "0.00"], "12.5")
    found = re.match(r"Score ([\d.]+) = ([\d.]+) / ", shown.err)
    assert found is not None
    projection = project(evidence, time.time())
    # Shown with two decimals of three: a figure may be rounded twice, and some of it has faded since.
    expected = pytest.approx([projection.score, projection.good], abs=0.011)
    assert list(map(float, found.groups())) == expected


def test_all_of_it_is_there_as_json(
    database: str, evidence: list[Evidence], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(database, PEER, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["id"] == PEER
    assert [one["kind"] for one in found["kinds"]] == ["answered", "late"]
    assert found["hours"] == [
        {"hour": evidence[1].hour, "kind": "late", "count": 2, "worst": 12.5},
        {"hour": evidence[0].hour, "kind": "answered", "count": 250},
    ]


@pytest.mark.parametrize("peer", ["0" * 16, "nobody", "0" * 17])
def test_who_was_never_seen_is_refused(database: str, peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(database, peer) == 1
    explained = capsys.readouterr().err
    assert explained.startswith("error: ")
    assert peer in explained
    assert "GET /api/swarm" in explained
