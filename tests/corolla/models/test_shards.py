"""What is read of a shard is a copy, and its mapping is let go on the way."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from corolla.models import CheckpointBroken, shards
from corolla.models.shards import Shard, StoredTensor

NUMBERS = torch.arange(12.0).reshape(3, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"numbers": NUMBERS, "one": torch.ones(1)}, path)
    return path


def test_a_tensor_has_its_shape_and_dtype_before_it_is_read(path: Path) -> None:
    tensor = StoredTensor(Shard(path), "numbers")
    assert (tensor.get_shape(), tensor.get_dtype()) == ([3, 4], "F32")


def test_what_is_read_is_memory_of_its_own(path: Path) -> None:
    shard = Shard(path)
    first, second = (StoredTensor(shard, "numbers")[...] for _ in range(2))
    first.zero_()
    assert torch.equal(second, NUMBERS)
    assert first.untyped_storage().nbytes() == NUMBERS.nbytes


def test_reading_goes_on_over_a_fresh_mapping(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PAGES_AT_MOST", 1)
    shard = Shard(path)
    before = StoredTensor(shard, "numbers")
    assert StoredTensor(shard, "one")[...].item() == 1
    assert torch.equal(before[...], NUMBERS)
    assert torch.equal(before[1:2], NUMBERS[1:2])


def test_a_file_that_goes_meanwhile_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PAGES_AT_MOST", 1)
    tensor = StoredTensor(Shard(path), "numbers")
    path.unlink()
    with pytest.raises(CheckpointBroken, match=r"model\.safetensors"):
        tensor[...]


def test_a_tensor_that_the_shard_lacks_is_named(path: Path) -> None:
    with pytest.raises(CheckpointBroken, match="nothing"):
        StoredTensor(Shard(path), "nothing")
