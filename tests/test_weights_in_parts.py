"""Weights in several files: read by their index, each part held to what the index says."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from pipeline.backbones.digest import sha256_of_file, unchanged
from pipeline.backbones.in_parts import files_of
from pipeline.backbones.weights import read_state_dict
from spg_core.errors import BackboneError

STATE = {f"blocks.{block}.weight": torch.full((64, 64), float(block)) for block in range(5)}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Five tensors of 16 KB in three files, as the hub's client writes them."""
    save_torch_state_dict(STATE, tmp_path, max_shard_size="40KB")
    assert len(parts(tmp_path)) == 3
    return tmp_path / "model.safetensors.index.json"


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*-of-00003.safetensors"))


def test_the_parts_together_are_the_state_that_was_saved(index: Path) -> None:
    found = read_state_dict(index)

    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_torch_files_are_parts_too(tmp_path: Path) -> None:
    save_torch_state_dict(STATE, tmp_path, max_shard_size="40KB", safe_serialization=False)

    assert read_state_dict(tmp_path / "pytorch_model.bin.index.json").keys() == STATE.keys()


def test_the_hubs_cache_gives_an_index_and_parts_that_are_links(index: Path) -> None:
    snapshot = index.parent / "hub" / "snapshots" / "rev"
    blobs = index.parent / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate([index, *parts(index.parent)]):
        (blobs / f"{number}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{number}")

    found = read_state_dict(snapshot / index.name)

    assert found.keys() == STATE.keys()
    assert sha256_of_file(snapshot / index.name) == sha256_of_file(index)


def test_one_part_alone_is_refused_with_the_index_to_give(index: Path) -> None:
    with pytest.raises(BackboneError, match=f"one part of weights in several files; give {index}"):
        read_state_dict(parts(index.parent)[0])


def test_a_part_that_is_not_there_is_named(index: Path) -> None:
    parts(index.parent)[1].unlink()

    with pytest.raises(BackboneError, match=r"no weights file at .*model-00002-of-00003"):
        read_state_dict(index)
    with pytest.raises(BackboneError, match="model-00002-of-00003"), unchanged(index):
        pass


def test_a_part_that_holds_other_tensors_than_the_index_says_is_named(index: Path) -> None:
    first, second, _ = parts(index.parent)
    second.write_bytes(first.read_bytes())

    with pytest.raises(
        BackboneError, match=r"does not hold what .*Missing keys: blocks\.2"
    ) as told:
        read_state_dict(index)

    assert str(told.value).startswith(str(second))
    assert "Unexpected keys: blocks.0" in str(told.value)


def test_a_part_cut_short_is_told_as_one_file_is(index: Path) -> None:
    third = parts(index.parent)[2]
    third.write_bytes(third.read_bytes()[:-8])

    with pytest.raises(BackboneError, match=r"model-00003.*header describes .* download it again"):
        read_state_dict(index)


def test_an_index_may_not_name_an_index(index: Path) -> None:
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))

    with pytest.raises(BackboneError, match="which is no file of tensors: index"):
        read_state_dict(index)


def test_the_digest_is_of_the_tensors_files_not_of_their_names(index: Path) -> None:
    before = sha256_of_file(index)
    text = index.read_text()
    for part in parts(index.parent):
        other = part.name.replace("model-", "weights-")
        part.rename(part.with_name(other))
        text = text.replace(part.name, other)
    index.write_text(text)

    assert sha256_of_file(index) == before


def test_another_tensor_in_a_part_is_another_digest(index: Path) -> None:
    before, last = sha256_of_file(index), parts(index.parent)[2]
    save_file({name: tensor + 1 for name, tensor in load_file(last).items()}, last)

    assert sha256_of_file(index) != before


def test_an_index_of_one_file_has_that_files_digest(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(STATE, "model.safetensors")}))

    assert sha256_of_file(index) == sha256_of_file(tmp_path / "model.safetensors")
    assert read_state_dict(tmp_path / "model.safetensors").keys() == STATE.keys()


def test_a_part_replaced_while_it_is_read_is_noticed(index: Path) -> None:
    said = r"model-00001-of-00003.* changes while it is read"

    with pytest.raises(BackboneError, match=said), unchanged(index):
        save_file({"a": torch.ones(3)}, parts(index.parent)[0])


def test_files_of_one_file_are_that_file(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "one.safetensors")

    assert files_of(tmp_path / "one.safetensors") == [tmp_path / "one.safetensors"]
    assert files_of(tmp_path / "missing") == [tmp_path / "missing"]
