"""Models from a Hub: what is downloaded, and what is said when it does not go well."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from corolla.models import HeadModel, ModelNotFound, ModelSource, PickleRefused, SpanModel, describe
from corolla.models.on_disk import blocks_on_disk
from corolla.models.source import SINGLE
from schema.ids import Span
from tests.corolla.models.checkpoints import llama, save
from tests.corolla.models.hub import COMMIT, Hub, running_hub


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    save(llama(), root / "meadow" / "sharded")
    save(llama(), root / "meadow" / "single", shard="1GB")
    for name in ("sharded", "single"):
        (root / "meadow" / name / "tokenizer.json").write_text("{}")
        (root / "meadow" / name / "homemade.py").write_text("raise SystemExit")
    pickled = root / "meadow" / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((root / "meadow" / "single" / "config.json").read_text())
    (pickled / "pytorch_model.bin").write_bytes(b"never opened")
    (root / "meadow" / "empty").mkdir()
    return root


@pytest.fixture
def hub(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running Hub, and an empty cache for what comes from it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    with running_hub(root) as hub:
        yield hub


def shards(hub: Hub) -> list[str]:
    return [name for name in hub.sent if name.endswith(".safetensors")]


def test_opening_a_model_downloads_its_config_only(hub: Hub) -> None:
    source = ModelSource.open("meadow/sharded", endpoint=hub.url)
    assert source.block_count == 6
    assert hub.sent == ["config.json"]


def test_a_revision_is_pinned_to_its_commit(hub: Hub) -> None:
    assert ModelSource.open("meadow/sharded", "v1", endpoint=hub.url).revision == COMMIT


def test_the_digest_is_the_same_as_of_a_local_copy(hub: Hub, root: Path) -> None:
    here = ModelSource.open(str(root / "meadow" / "sharded"))
    assert ModelSource.open("meadow/sharded", endpoint=hub.url).digest == here.digest


def test_a_span_downloads_the_shards_of_its_blocks_only(hub: Hub) -> None:
    source = ModelSource.open("meadow/sharded", endpoint=hub.url)
    span = SpanModel.load(source, 2, 4)
    own = {shard for name, shard in source.shard_of.items() if ".layers.2." in name or ".layers.3." in name}
    assert sorted(shards(hub)) == sorted(own)
    assert len(own) < len(set(source.shard_of.values()))
    assert span.forward(torch.zeros(1, 3, 32)).shape == (1, 3, 32)


def test_what_is_on_disk_is_not_downloaded_again(hub: Hub) -> None:
    for _ in range(2):
        HeadModel.load(ModelSource.open("meadow/sharded", endpoint=hub.url))
    assert len(shards(hub)) == len(set(shards(hub)))


def test_the_facts_of_a_model_in_one_file_need_only_its_header(hub: Hub) -> None:
    facts = describe(ModelSource.open("meadow/single", endpoint=hub.url), torch.float32)
    assert facts.block_count == 6
    assert shards(hub) == []
    assert set(hub.sent_in_part) == {SINGLE}


def test_the_tokenizer_comes_without_weights_or_code(hub: Hub) -> None:
    folder = ModelSource.open("meadow/sharded", endpoint=hub.url).tokenizer_folder()
    names = {path.name for path in folder.iterdir()}
    assert {"tokenizer.json", "config.json"} <= names
    assert not any(name.endswith((".py", ".safetensors")) for name in names)


def test_pickles_are_refused_without_a_download(hub: Hub) -> None:
    with pytest.raises(PickleRefused, match="meadow/pickled"):
        ModelSource.open("meadow/pickled", endpoint=hub.url).tensor_names()
    assert hub.sent == ["config.json"]


@pytest.mark.parametrize(
    ("name", "revision", "reason"),
    [
        ("meadow/nowhere", None, "neither a local folder nor a repository"),
        ("no/such/folder", None, "neither a local folder nor a repository"),
        ("meadow/sharded", "v99", "no such revision"),
        ("meadow/empty", None, r"no config\.json"),
    ],
)
def test_what_is_not_there_is_named(hub: Hub, name: str, revision: str | None, reason: str) -> None:
    with pytest.raises(ModelNotFound, match=reason):
        ModelSource.open(name, revision, endpoint=hub.url)


def test_a_hub_that_cannot_be_asked_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound, match="does not answer"):
        ModelSource.open("meadow/sharded", endpoint=hub.url)


def test_a_model_on_disk_is_opened_without_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    ModelSource.open("meadow/sharded", endpoint=hub.url).tensor_names()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = ModelSource.open("meadow/sharded", endpoint=hub.url)
    assert source.revision == COMMIT
    assert "model.embed_tokens.weight" in source.tensor_names()


def test_blocks_are_on_disk_once_they_were_downloaded(hub: Hub, root: Path) -> None:
    source = ModelSource.open("meadow/sharded", endpoint=hub.url)
    assert blocks_on_disk(source) == []
    SpanModel.load(source, 2, 4)
    assert any(run.start <= 2 and run.end >= 4 for run in blocks_on_disk(source))
    assert blocks_on_disk(source) != [Span(0, source.block_count)], "some shards are still at the Hub"
    assert blocks_on_disk(ModelSource.open(str(root / "meadow" / "sharded"))) == [Span(0, 6)]
