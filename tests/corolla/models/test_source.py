"""Where a model's files are, what is read of them, and what is never opened."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from corolla.models import (
    CheckpointBroken,
    FamilyRefused,
    ModelNotFound,
    ModelSource,
    PickleRefused,
    RemoteCodeRefused,
)
from corolla.models.source import INDEX, SINGLE
from tests.corolla.models.checkpoints import llama, save

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save(llama(), folder)
    return folder


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor for shard in folder.glob("*.safetensors") for name, tensor in load_file(shard).items()
    }


def test_a_sharded_folder_is_opened(checkpoint: Path) -> None:
    source = ModelSource.open(str(checkpoint))
    assert len(set(source.shard_of.values())) > 3
    assert source.tensor_names() == tuple(sorted(all_tensors(checkpoint)))
    assert source.config.num_hidden_layers == source.block_count == 6
    assert source.revision is None


def test_named_tensors_are_read(checkpoint: Path) -> None:
    names = [EMBEDDING, "model.layers.3.mlp.up_proj.weight"]
    read = ModelSource.open(str(checkpoint)).read(names)
    everything = all_tensors(checkpoint)
    assert list(read) == names
    assert all(torch.equal(read[name], everything[name]) for name in names)


def test_reading_needs_only_the_shards_of_the_named_tensors(copy: Path) -> None:
    source = ModelSource.open(str(copy))
    for shard in copy.glob("*.safetensors"):
        if shard.name != source.shard_of[EMBEDDING]:
            shard.unlink()
    assert source.read([EMBEDDING])[EMBEDDING].shape == (97, 32)


def test_a_tensor_that_the_checkpoint_lacks_is_named(checkpoint: Path) -> None:
    with pytest.raises(CheckpointBroken, match=r"no tensor 'nothing'"):
        ModelSource.open(str(checkpoint)).read(["nothing"])


def test_the_digest_does_not_depend_on_how_the_checkpoint_is_stored(checkpoint: Path, tmp_path: Path) -> None:
    whole = tmp_path / "in one file"
    whole.mkdir()
    save_file(all_tensors(checkpoint), whole / SINGLE)
    shutil.copy(checkpoint / "config.json", whole)
    edit_json(
        whole / "config.json", lambda c: c.update(transformers_version="0.0", _name_or_path="elsewhere")
    )
    digest = ModelSource.open(str(whole)).digest
    assert digest == ModelSource.open(str(checkpoint)).digest
    assert len(digest) == 64


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: edit_json(folder / "config.json", lambda c: c.update(rms_norm_eps=1e-3)),
        lambda folder: edit_json(folder / INDEX, lambda i: i["weight_map"].pop(EMBEDDING)),
    ],
    ids=["another config", "another set of tensors"],
)
def test_the_digest_tells_models_apart(checkpoint: Path, copy: Path, change: Callable[[Path], None]) -> None:
    change(copy)
    assert ModelSource.open(str(copy)).digest != ModelSource.open(str(checkpoint)).digest


def test_a_folder_without_a_config_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        ModelSource.open(str(tmp_path))


def test_pickles_are_refused(copy: Path) -> None:
    for path in [*copy.glob("*.safetensors"), copy / INDEX]:
        path.unlink()
    (copy / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(PickleRefused, match="save_pretrained"):
        ModelSource.open(str(copy)).tensor_names()


def test_an_index_that_lists_pickles_is_refused(copy: Path) -> None:
    edit_json(copy / INDEX, lambda index: index["weight_map"].update({EMBEDDING: "part.bin"}))
    with pytest.raises(PickleRefused, match=r"part\.bin"):
        ModelSource.open(str(copy)).tensor_names()


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/x.safetensors", "..\\x.safetensors"])
def test_an_index_that_points_outside_is_refused(copy: Path, shard: str) -> None:
    edit_json(copy / INDEX, lambda index: index["weight_map"].update({EMBEDDING: shard}))
    with pytest.raises(CheckpointBroken, match="outside"):
        ModelSource.open(str(copy)).tensor_names()


def test_code_of_the_checkpoint_is_refused_where_it_would_be_needed(copy: Path) -> None:
    edit_json(copy / "config.json", lambda c: c.update(model_type="homemade", auto_map={"AutoConfig": "x.X"}))
    with pytest.raises(RemoteCodeRefused, match="homemade"):
        ModelSource.open(str(copy))


def test_code_of_the_checkpoint_is_never_run(copy: Path) -> None:
    """Many checkpoints of supported families still carry the code that came before the support."""
    (copy / "homemade.py").write_text("raise SystemExit('the code of the checkpoint was run')")
    edit_json(copy / "config.json", lambda c: c.update(auto_map={"AutoConfig": "homemade.X"}))
    assert type(ModelSource.open(str(copy)).config).__name__ == "LlamaConfig"


def test_an_unknown_model_type_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", lambda c: c.update(model_type="homemade"))
    with pytest.raises(FamilyRefused, match="homemade"):
        ModelSource.open(str(copy))


def test_a_checkpoint_that_is_stored_quantized_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", lambda c: c.update(quantization_config={"quant_method": "fp8"}))
    with pytest.raises(FamilyRefused, match="stored quantized"):
        ModelSource.open(str(copy))


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"model_type": "llama", "hidden_size": "wide"}',
        '{"model_type": "llama", "num_hidden_layers": 0}',
    ],
)
def test_a_config_that_makes_no_sense_is_refused(copy: Path, config: str) -> None:
    (copy / "config.json").write_text(config)
    with pytest.raises(CheckpointBroken, match="copy"):
        ModelSource.open(str(copy))


def test_a_config_with_too_many_blocks_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", lambda c: c.update(num_hidden_layers=1_000_000))
    with pytest.raises(CheckpointBroken, match="1000000 blocks"):
        ModelSource.open(str(copy))


def test_a_damaged_shard_is_named(copy: Path) -> None:
    source = ModelSource.open(str(copy))
    (copy / source.shard_of[EMBEDDING]).write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointBroken, match=source.shard_of[EMBEDDING]):
        source.read([EMBEDDING])


def test_a_shard_that_is_not_there_is_named(copy: Path) -> None:
    source = ModelSource.open(str(copy))
    (copy / source.shard_of[EMBEDDING]).unlink()
    with pytest.raises(CheckpointBroken, match=source.shard_of[EMBEDDING]):
        source.read([EMBEDDING])


def test_a_checkpoint_without_weights_is_named(copy: Path) -> None:
    for path in [*copy.glob("*.safetensors"), copy / INDEX]:
        path.unlink()
    with pytest.raises(CheckpointBroken, match="no weights"):
        ModelSource.open(str(copy)).tensor_names()


def test_the_tokenizer_of_a_folder_is_in_the_folder(checkpoint: Path) -> None:
    assert ModelSource.open(str(checkpoint)).tokenizer_folder() == checkpoint
