"""Tensors by other people's names: found, renamed, or listed by name; never dropped in silence."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.backbones.load import load_backbone
from spg_core.errors import BackboneError
from tests.random_weights import random_timm_weights


@pytest.fixture
def shrunk_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build every timm model with two narrow blocks: the real architecture in a second."""
    import timm

    small = functools.partial(timm.create_model, embed_dim=32, depth=2, num_heads=2)
    monkeypatch.setattr(timm, "create_model", small)


def tokens_of(folder: Path, state: dict[str, Tensor], name: str = "timm:test_vit") -> Tensor:
    """Give a backbone's tokens of one image of noise, with tensors from a file."""
    torch.save(state, folder / "state.pth")
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    return load_backbone(name, image_size=224, weights=folder / "state.pth")(pixels).tokens


def renamed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


PREFIXES = [
    "module.", "model.", "backbone.", "encoder.", "teacher.backbone.", "student.backbone.",
    "model.backbone.", "net.module.", "model.vision_tower.", "module._orig_mod.", "dinov2.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_found_whatever_it_is(tmp_path: Path, prefix: str) -> None:
    state = load_file(random_timm_weights(tmp_path, "test_vit"))

    found = tokens_of(tmp_path, renamed(state, prefix))

    assert torch.equal(found, tokens_of(tmp_path, state))


def test_heads_and_parts_of_training_stand_beside_a_backbone(tmp_path: Path) -> None:
    state = load_file(random_timm_weights(tmp_path, "test_vit"))
    more = torch.ones(2)
    lightning = renamed(state, "model.backbone.") | {
        "model.head.weight": more,
        "model.dino_head.mlp.0.weight": more,
        "loss.weight": more,
        "criterion.center": more,
    }

    assert torch.equal(tokens_of(tmp_path, lightning), tokens_of(tmp_path, state))


def test_what_is_no_known_part_is_listed_by_five_names(tmp_path: Path) -> None:
    state = load_file(random_timm_weights(tmp_path, "test_vit"))
    more = {f"model.adapter.{index}.weight": torch.ones(2) for index in range(7)}

    with pytest.raises(BackboneError) as refusal:
        tokens_of(tmp_path, renamed(state, "model.backbone.") | more)
    assert "beside the backbone (model.backbone.*)" in str(refusal.value)
    assert "model.adapter.4.weight, .. 7 in all; save the backbone" in str(refusal.value)
    assert "model.adapter.5" not in str(refusal.value)


def test_parameters_within_the_backbone_that_the_model_lacks_are_listed_by_five_names(
    tmp_path: Path,
) -> None:
    state = load_file(random_timm_weights(tmp_path, "test_vit"))
    lora = {f"blocks.{block}.attn.qkv.lora_A": torch.ones(2) for block in range(6)}
    lacking = {key: value for key, value in state.items() if not key.startswith("blocks.5.")}

    with pytest.raises(BackboneError, match=r"Unexpected key.*lora_A.*\.\. 6 in all") as refusal:
        tokens_of(tmp_path, state | lora)
    assert "blocks.5.attn.qkv.lora_A" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    with pytest.raises(BackboneError, match=r"Missing key.*blocks\.5.*\.\. \d+ in all"):
        tokens_of(tmp_path, lacking)


def test_of_a_teacher_and_a_student_the_teacher_is_taken(tmp_path: Path) -> None:
    state = load_file(random_timm_weights(tmp_path, "test_vit"))
    student = {key: value + 1 for key, value in state.items()}
    both = renamed(student, "student.backbone.") | renamed(state, "teacher.backbone.")

    assert torch.equal(tokens_of(tmp_path, both), tokens_of(tmp_path, state))
    two = renamed(student, "left.") | renamed(state, "right.")
    with pytest.raises(
        BackboneError, match=r"holds 2 vision transformers \(left\.patch_embed.*, right\.patch"
    ):
        tokens_of(tmp_path, two)


def test_metas_blocks_in_chunks_are_blocks(tmp_path: Path) -> None:
    state = load_file(random_timm_weights(tmp_path, "test_vit"))

    def chunked(key: str) -> str:
        number = key.split(".")[1]
        return key.replace(f"blocks.{number}.", f"blocks.{int(number) // 2}.{number}.", 1)

    chunks = {chunked(key) if "blocks." in key else key: value for key, value in state.items()}

    assert torch.equal(tokens_of(tmp_path, chunks), tokens_of(tmp_path, state))


def test_a_file_without_a_vision_transformer_is_refused_by_what_it_holds(tmp_path: Path) -> None:
    text = {"bert.embeddings.word_embeddings.weight": torch.ones(2, 2)}

    with pytest.raises(BackboneError, match=r"does not fit .*(Missing|Unexpected) key"):
        tokens_of(tmp_path, text)
    with pytest.raises(BackboneError, match=r"no vision transformer.*bert\.embeddings"):
        tokens_of(tmp_path, text, "open_clip:ViT-B-32-quickgelu/openai")


def test_a_timm_file_for_open_clip_is_refused_with_the_right_way(tmp_path: Path) -> None:
    state = load_file(random_timm_weights(tmp_path, "test_vit"))

    with pytest.raises(BackboneError, match=r"timm's or Meta's names.*--backbone timm:<model>"):
        tokens_of(tmp_path, state, "openclip")


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    state = load_file(random_timm_weights(tmp_path, "test_vit"))
    name = "blocks.0.attn.qkv.weight"
    state[name] = (state[name] * 100).to(torch.int8)

    with pytest.raises(
        BackboneError, match=r"is quantised \(blocks\.0\.attn\.qkv\.weight of .*int8"
    ):
        tokens_of(tmp_path, state)


@pytest.mark.usefixtures("shrunk_timm")
def test_siglip_needs_no_pooling_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = random_timm_weights(tmp_path, "vit_large_patch16_siglip_384")
    state = load_file(weights)
    bare = tmp_path / "bare.safetensors"
    save_file({key: state[key] for key in state if not key.startswith("attn_pool.")}, bare)
    pixels = torch.randn(1, 3, 48, 48)

    found = load_backbone("siglip", image_size=48, weights=bare)(pixels).tokens

    expected = load_backbone("siglip", image_size=48, weights=weights)(pixels).tokens
    assert torch.equal(found, expected)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("shrunk_timm")
def test_weights_of_another_preset_are_refused(tmp_path: Path) -> None:
    weights: dict[str, Any] = {
        "dinov3": random_timm_weights(tmp_path, "vit_large_patch16_dinov3"),
        "dinov2": random_timm_weights(tmp_path, "vit_large_patch14_dinov2"),
        "siglip": random_timm_weights(tmp_path, "vit_large_patch16_siglip_384"),
    }

    for name in weights:
        for other in weights.keys() - {name}:
            with pytest.raises(BackboneError, match="does not fit timm:"):
                load_backbone(name, image_size=336, weights=weights[other])
