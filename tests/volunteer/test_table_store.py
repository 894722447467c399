"""Tables on disk: found again, and never in the way."""

import logging
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from corolla.models.facts import ModelFacts
from corolla.models.loading import LoadOptions
from schema.ids import Span
from tests.volunteer.tiny import tiny_facts, tiny_source
from volunteer import table_store
from volunteer.table_store import Subject, TableStore
from volunteer.throughput import DecodeStep, Spread, Table
from volunteer.versions import Versions, present_versions

TABLE = Table(decode=(DecodeStep(batch=1, context=0, seconds=Spread(median=0.2, low=0.1, high=0.3, runs=9)),))
VERSIONS = Versions(corolla="1", torch="2", transformers="3")


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> ModelFacts:
    return tiny_facts(tiny_source(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def subject(facts: ModelFacts) -> Subject:
    return Subject.of("an abacus", 1, facts, LoadOptions(), Span(0, 2))


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(tmp_path / "cache", VERSIONS)


def file_of(store: TableStore, subject: Subject) -> Path:
    path = store.path(subject)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class TestATable:
    def test_that_was_kept_is_found(self, store: TableStore, subject: Subject, tmp_path: Path) -> None:
        assert store.load(subject) is None
        store.save(subject, TABLE)
        assert store.load(subject) == TABLE
        assert TableStore(tmp_path / "cache", VERSIONS).load(subject) == TABLE

    def test_is_replaced_by_a_newer_one_as_a_whole(self, store: TableStore, subject: Subject) -> None:
        store.save(subject, TABLE)
        store.save(subject, Table())
        assert store.load(subject) == Table()
        path = file_of(store, subject)
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize(
        "other",
        [
            {"device": "a slide rule"},
            {"threads": 2},
            {"model": "other"},
            {"revision": "abc"},
            {"digest": "0" * 64},
            {"dtype": "bfloat16"},
            {"quantization": "nf4"},
            {"kernels": "fastest"},
            {"blocks": 3},
            {"start": 1},
        ],
    )
    def test_is_of_its_subject_alone(
        self, store: TableStore, subject: Subject, other: dict[str, object]
    ) -> None:
        store.save(subject, TABLE)
        assert store.load(msgspec.structs.replace(subject, **other)) is None

    @pytest.mark.parametrize("library", ["corolla", "torch", "transformers"])
    def test_of_another_version_is_none_and_makes_way(
        self,
        store: TableStore,
        subject: Subject,
        tmp_path: Path,
        library: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        store.save(subject, TABLE)
        newer = TableStore(tmp_path / "cache", msgspec.structs.replace(VERSIONS, **{library: "9"}))
        with caplog.at_level(logging.WARNING):
            assert newer.load(subject) is None
        assert not caplog.messages
        newer.save(subject, TABLE)
        assert newer.load(subject) == TABLE
        assert len(list(file_of(store, subject).parent.iterdir())) == 1


class TestAFile:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"not json",
            b"[]",
            b"{}",
            b"\xff\xfe",
            b'{"subject": 1, "versions": 2, "table": 3}',
            b"{" * 100_000,
        ],
    )
    def test_that_is_broken_is_named_and_ignored(
        self, store: TableStore, subject: Subject, content: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = file_of(store, subject)
        path.write_bytes(content)
        assert store.load(subject) is None
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert str(path) in caplog.text
        store.save(subject, TABLE)
        assert store.load(subject) == TABLE

    @pytest.mark.parametrize(
        ("sound", "broken"),
        [
            (b'"median": 0.2', b'"median": -0.2'),
            (b'"low": 0.1', b'"low": 0.25'),
            (b'"runs": 9', b'"runs": 0'),
        ],
    )
    def test_whose_figures_cannot_be_is_named_and_ignored(
        self,
        store: TableStore,
        subject: Subject,
        sound: bytes,
        broken: bytes,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        store.save(subject, TABLE)
        path = file_of(store, subject)
        assert sound in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(sound, broken))
        assert store.load(subject) is None
        assert str(path) in caplog.text

    def test_of_something_else_is_named_and_ignored(
        self, store: TableStore, subject: Subject, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = msgspec.structs.replace(subject, device="a slide rule")
        store.save(other, TABLE)
        file_of(store, other).rename(file_of(store, subject))
        assert store.load(subject) is None
        assert "something else" in caplog.text

    def test_that_is_huge_is_not_read(
        self, store: TableStore, subject: Subject, caplog: pytest.LogCaptureFixture
    ) -> None:
        file_of(store, subject).write_bytes(b" " * (table_store.MAX_FILE_BYTES + 1))
        assert store.load(subject) is None
        assert str(table_store.MAX_FILE_BYTES) in caplog.text

    def test_that_is_a_folder_is_named_and_ignored(
        self, store: TableStore, subject: Subject, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = file_of(store, subject)
        path.mkdir()
        assert store.load(subject) is None
        store.save(subject, TABLE)
        assert str(path) in caplog.text

    def test_is_not_written_where_there_can_be_no_folder(
        self, tmp_path: Path, subject: Subject, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "taken").write_text("")
        store = TableStore(tmp_path / "taken", VERSIONS)
        store.save(subject, TABLE)
        assert store.load(subject) is None
        assert "not kept" in caplog.text

    def test_is_not_written_where_nobody_said_where(self, subject: Subject) -> None:
        store = TableStore(None, VERSIONS)
        store.save(subject, TABLE)
        assert (store.path(subject), store.load(subject)) == (None, None)


def test_blocks_that_are_alike_share_a_table(facts: ModelFacts) -> None:
    first, second = (
        Subject.of("an abacus", 1, facts, LoadOptions(), span) for span in (Span(0, 2), Span(1, 3))
    )
    assert first == second


def test_blocks_that_differ_do_not(facts: ModelFacts) -> None:
    mixed = replace(facts, kv_tokens_at_most=(None, 128, None))
    first, second = (
        Subject.of("an abacus", 1, mixed, LoadOptions(), span) for span in (Span(0, 2), Span(1, 3))
    )
    assert first != second


def test_the_versions_are_those_that_compute() -> None:
    assert present_versions().torch == torch.__version__
