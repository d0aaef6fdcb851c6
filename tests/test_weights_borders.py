"""Weights as training programs leave them: whole models, averages, damage that nobody notices."""

import argparse
import functools
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pipeline.backbones.load import load_backbone
from pipeline.backbones.weights import read_state_dict
from spg_core.errors import BackboneError
from tests.random_weights import random_timm_weights

MODEL = "test_vit"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return load_file(random_timm_weights(tmp_path_factory.mktemp("weights"), MODEL))


def net(state: dict[str, Tensor]) -> nn.Module:
    import timm

    made: nn.Module = timm.create_model(MODEL)
    made.load_state_dict(state)
    return made


def by_timms_saver(path: Path, model: nn.Module) -> None:
    """As timm's train.py: options as NumPy has them, an average that counts."""
    from timm.utils.checkpoint_saver import CheckpointSaver
    from timm.utils.model_ema import ModelEmaV3

    average = ModelEmaV3(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    args = argparse.Namespace(lr=np.float64(0.1), model=MODEL)
    folder = str(path.parent)
    saver = CheckpointSaver(
        model, optimizer, args=args, model_ema=average, checkpoint_dir=folder, recovery_dir=folder
    )
    saver.save_checkpoint(0, metric=np.float64(0.5))
    path.with_name("last.pth.tar").rename(path)


def with_an_average_beside(path: Path, model: nn.Module) -> None:
    """As a Lightning module holds both: the average is the one to be used."""
    module = nn.Module()
    module.ema_model = model
    module.model = nn.ModuleDict({"patch_embed": nn.ModuleDict({"proj": nn.Conv2d(3, 64, 16)})})
    torch.save({"state_dict": module.state_dict(), "loops": {"lr": np.float32(1)}}, path)


def autoencoder(path: Path, model: nn.Module) -> None:
    beside = {
        "mask_token": torch.ones(1, 1, 8),
        "decoder_pos_embed": torch.ones(1, 5, 8),
        "decoder_blocks.0.norm1.weight": torch.ones(8),
    }
    torch.save({"model": {**model.state_dict(), **beside}}, path)


READ: dict[str, Callable[[Path, nn.Module], object]] = {
    "a whole model": lambda path, model: torch.save(model, path),
    "a whole model in a checkpoint": lambda path, model: torch.save(
        {"model": model, "epoch": 3, "best": np.float64(0.5)}, path
    ),
    "a whole data-parallel model": lambda path, model: torch.save(nn.DataParallel(model), path),
    "torch's average": lambda path, model: torch.save(AveragedModel(model).state_dict(), path),
    "the average of a data-parallel model": lambda path, model: torch.save(
        AveragedModel(nn.DataParallel(model)).state_dict(), path
    ),
    "a compiled data-parallel model": lambda path, model: torch.save(
        cast("nn.Module", torch.compile(nn.DataParallel(model))).state_dict(), path
    ),
    "timm's checkpoint": by_timms_saver,
    "an average beside its model": with_an_average_beside,
    "a masked autoencoder": autoencoder,
}


@pytest.mark.parametrize("what", READ)
def test_what_a_training_program_saved_gives_the_tokens_of_its_model(
    tmp_path: Path, state: dict[str, Tensor], what: str
) -> None:
    save_file(state, tmp_path / "plain.safetensors")
    READ[what](tmp_path / "weights", net(state))
    pixels = torch.randn(1, 3, 160, 160)

    found = load_backbone(f"timm:{MODEL}", weights=tmp_path / "weights")(pixels)

    expected = load_backbone(f"timm:{MODEL}", weights=tmp_path / "plain.safetensors")(pixels)
    assert torch.equal(found.tokens, expected.tokens)


class _Shown(nn.Module):
    """With what a state dict has, and what it has not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("made_anew", torch.ones(2), persistent=False)
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.act = torch.nn.functional.gelu


def test_a_whole_model_has_the_names_and_values_of_its_state_dict(tmp_path: Path) -> None:
    model = _Shown()
    torch.save(model, tmp_path / "model.pt")

    found = read_state_dict(tmp_path / "model.pt")

    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())


def flipped(path: Path, model: nn.Module) -> None:
    torch.save(model.state_dict(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def diverged(path: Path, model: nn.Module) -> None:
    named = model.state_dict()
    named["blocks.0.attn.qkv.weight"][0, 0] = 1e6
    torch.save({key: value.half() for key, value in named.items()}, path)  # 1e6 is no float16


def bomb(path: Path, model: nn.Module) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02](" + b"N" * (64 << 20) + b"e.")


def without_numbers(path: Path, model: nn.Module) -> None:
    torch.save(model.to("meta").state_dict(), path)


def distributed(path: Path, model: nn.Module) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    save({"model": model.state_dict()}, checkpoint_id=str(path), no_dist=True)


def exported(path: Path, model: nn.Module) -> None:
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(1, 3, 160, 160),)), path)


REFUSED: dict[str, tuple[Callable[[Path, nn.Module], object], str]] = {
    "a flipped bit": (flipped, r"damaged torch file \(Bad CRC-32 .*download it again"),
    "a number too large for float16": (diverged, r"NaN, infinity .*blocks\.0\.attn\.qkv\.weight"),
    "a zip bomb": (bomb, r"data\.pkl is compressed"),
    "a model without numbers": (without_numbers, "no numbers at all"),
    "distributed checkpoints": (distributed, "folder of torch's distributed .*dcp_to_torch"),
    "torch.export": (exported, "a program of torch.export; .*exported from"),
    "a whole model of torch 1.5": (
        lambda path, model: torch.save(model, path, _use_new_zipfile_serialization=False),
        r"holds other objects.*else m\.state_dict\(\)",
    ),
    "a pickle of arrays": (
        lambda path, model: path.write_bytes(
            pickle.dumps({key: value.numpy() for key, value in model.state_dict().items()})
        ),
        r"a Python pickle.*torch\.as_tensor",
    ),
}


@pytest.mark.filterwarnings("ignore")  # of torch, about what it saves
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_damaged_or_of_another_kind_is_refused_with_what_to_do(
    tmp_path: Path, state: dict[str, Tensor], what: str
) -> None:
    write, words = REFUSED[what]
    write(tmp_path / "weights", net(state))

    with pytest.raises(BackboneError, match=words) as refusal:
        load_backbone(f"timm:{MODEL}", weights=tmp_path / "weights")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("what", ["a whole model of torch 1.5", "a pickle of arrays"])
def test_the_conversion_that_a_refusal_names_makes_weights_that_load(
    tmp_path: Path, state: dict[str, Tensor], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    REFUSED[what][0](tmp_path / "weights", net(state))
    with pytest.raises(BackboneError) as refusal:
        load_backbone(f"timm:{MODEL}", weights=tmp_path / "weights")
    code = str(refusal.value).partition('python -c "')[2].removesuffix('"')

    monkeypatch.chdir(tmp_path)
    exec(code, {})  # as the user would

    found: dict[str, Any] = read_state_dict(tmp_path / "weights.pth")
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_a_torch_file_that_was_written_without_checksums_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(9)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(before)

    assert torch.equal(read_state_dict(tmp_path / "x.pth")["a"], torch.ones(9))


def test_weights_with_registers_are_told_from_those_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    small = functools.partial(timm.create_model, embed_dim=32, depth=2, num_heads=2)
    monkeypatch.setattr(timm, "create_model", small)
    names = [f"vit_small_patch14_{reg}dinov2" for reg in ("reg4_", "")]
    with_four, without = (random_timm_weights(tmp_path, name) for name in names)
    by_meta = {key.replace("reg_token", "register_tokens"): value
               for key, value in load_file(with_four).items()}  # fmt: skip
    torch.save(by_meta, tmp_path / "dinov2_vits14_reg4_pretrain.pth")

    for four in (with_four, tmp_path / "dinov2_vits14_reg4_pretrain.pth"):
        with pytest.raises(BackboneError, match="it has 4 register tokens, the model 0"):
            load_backbone(f"timm:{names[1]}", weights=four, image_size=56)
    with pytest.raises(BackboneError, match="it has 0 register tokens, the model 4"):
        load_backbone(f"timm:{names[0]}", weights=without, image_size=56)
    assert load_backbone(f"timm:{names[0]}", weights=with_four, image_size=56).spec.d_model == 32
