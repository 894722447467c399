"""`python -m relay quarantine` and `restore`: what an operator types, and what becomes of it."""

import asyncio

import pytest

from relay.__main__ import main
from relay.records import Evidence, QuarantineRecord
from relay.reputation import HOUR
from relay.settings import Settings
from relay.store import Store
from schema.ids import PeerId

PEER = PeerId("00000000000000aa")


def run(database: str, *arguments: str) -> int:
    return main(arguments, {"DATABASE_URL": database})


def kept_out(database: str) -> list[QuarantineRecord]:
    async def read() -> list[QuarantineRecord]:
        async with Store.open(Settings(database_url=database)) as store:
            return await store.quarantined()

    return asyncio.run(read())


@pytest.fixture
def known(database: str) -> str:
    """A database in which something was seen of a volunteer."""

    async def write() -> None:
        async with Store.open(Settings(database_url=database)) as store:
            await store.append_evidence([Evidence(PEER, "answered", HOUR, 1)])

    asyncio.run(write())
    return database


def test_a_volunteer_is_kept_out_and_let_in_again(known: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(known, "quarantine", PEER, "--reason", "nonsense") == 0
    assert "revoke the token" in capsys.readouterr().err
    (record,) = kept_out(known)
    assert (record.peer, record.reason, record.by) == (PEER, "nonsense", None)
    assert run(known, "restore", PEER, "--reason", "mended") == 0
    assert kept_out(known) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("quarantine", "nobody", "--reason", "x"), "16 hex digits"),
        (("quarantine", "0" * 16, "--reason", "x"), "nothing is known"),
        (("quarantine", PEER, "--reason", " "), "a reason"),
        (("restore", PEER, "--reason", "x"), "in no quarantine"),
    ],
)
def test_what_cannot_be_is_refused_with_the_cause(
    known: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert run(known, *arguments) == 1
    assert words in capsys.readouterr().err
    assert kept_out(known) == []


@pytest.mark.parametrize("command", ["quarantine", "restore"])
def test_a_reason_is_needed(command: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, PEER], {})
    assert exit_.value.code == 2
