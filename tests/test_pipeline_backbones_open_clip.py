"""open_clip backbones: the library's own forward pass, and what cannot be had from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.backbones.load import (
    load_backbone,
)
from pipeline.backbones.open_clip_records import _check_activation
from spg_core.errors import BackboneError, ConfigError
from spg_core.types import PatchGrid


@pytest.fixture
def tiny_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Teach open_clip a tiny model of the real class and write random weights for it."""
    import open_clip
    from open_clip import factory, pretrained

    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 56, "layers": 3, "width": 64, "patch_size": 14},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
    }
    record = {**open_clip.get_pretrained_cfg("ViT-L-14-336-quickgelu", "openai"), "hf_hub": "o/m/"}
    for name, quick in (("ViT-Test-quickgelu", True), ("ViT-Test", False)):
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, {**config, "quick_gelu": quick})
        monkeypatch.setitem(pretrained._PRETRAINED, name, {"openai": record})
    torch.manual_seed(5)
    state = open_clip.create_model("ViT-Test-quickgelu").state_dict()
    path = tmp_path / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def open_clip_visual(model: str, weights: Path, size: int) -> Any:
    import open_clip

    return (
        open_clip.create_model(model, pretrained=str(weights), force_image_size=size).eval().visual
    )


@pytest.mark.parametrize("size", [56, 84])
def test_open_clip_tokens_are_the_librarys_own_forward_pass(tiny_clip: Path, size: int) -> None:
    visual = open_clip_visual("ViT-Test-quickgelu", tiny_clip, size)
    visual.output_tokens = True
    pixels = torch.randn(2, 3, size, size)

    backbone = load_backbone(
        "open_clip:ViT-Test-quickgelu/openai", image_size=size, weights=tiny_clip
    )
    found = backbone(pixels)

    with torch.inference_mode():
        pooled, expected = visual(pixels)
        assert found.cls is not None
        projected_cls = found.cls @ visual.proj
    assert backbone.spec.grid == PatchGrid(size // 14, size // 14)
    torch.testing.assert_close(found.tokens, expected)
    torch.testing.assert_close(projected_cls, pooled)


def test_openclip_by_name_projects_every_patch_token(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.backbones import presets

    row = replace(
        presets.PRESETS["openclip"],
        model="open_clip:ViT-Test-quickgelu/openai",
        position_embedding=presets.BY_LIBRARY,
    )
    monkeypatch.setitem(presets.PRESETS, "openclip", row)
    visual = open_clip_visual("ViT-Test-quickgelu", tiny_clip, 70)
    pixels = torch.randn(2, 3, 70, 70)

    found = load_backbone("openclip", image_size=70, weights=tiny_clip)(pixels)
    raw = load_backbone("openclip", image_size=70, weights=tiny_clip, final_norm=False)

    # Projected the library's way: a patch token put in the class token's place before the pooling.
    with torch.inference_mode():
        blocks = visual.transformer(visual._embeds(pixels))
        expected = torch.stack(
            [visual._pool(blocks[:, i:])[0] @ visual.proj for i in range(blocks.shape[1])], dim=1
        )
        torch.testing.assert_close(found.tokens, expected[:, 1:])
        torch.testing.assert_close(found.cls, visual(pixels))
        torch.testing.assert_close(raw(pixels).tokens, blocks[:, 1:])
    assert not raw.spec.projection


def test_gelu_where_the_weights_need_quick_gelu_is_refused_with_the_right_name() -> None:
    with pytest.raises(ConfigError, match="use open_clip:ViT-L-14-336-quickgelu/openai"):
        load_backbone("open_clip:ViT-L-14-336/openai")
    with pytest.raises(ConfigError, match=r"computes QuickGELU.*trained with GELU"):
        _check_activation("ViT-B-32-quickgelu", "laion2b_e16", {"quick_gelu": True}, {})


def test_open_clip_names_that_cannot_give_patch_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"names no weights; use open_clip:<model>/<tag>"):
        load_backbone("open_clip:ViT-B-32")
    with pytest.raises(BackboneError, match="open_clip has no model 'ViT-Nope'"):
        load_backbone("open_clip:ViT-Nope/openai")
    with pytest.raises(BackboneError, match="has no weights 'nope'; it has openai"):
        load_backbone("open_clip:ViT-B-32/nope")
    with pytest.raises(BackboneError, match="no plain grid of patch tokens"):
        load_backbone("open_clip:RN50-quickgelu/openai")
    with pytest.raises(BackboneError, match=r"image tower of .* is timm's; use timm:"):
        load_backbone("open_clip:ViT-B-16-SigLIP/webli")


def test_half_precision_clip_weights_load_at_another_size(tiny_clip: Path, tmp_path: Path) -> None:
    state = {key: value.half() for key, value in load_file(tiny_clip).items()}
    half, rounded = tmp_path / "half.safetensors", tmp_path / "rounded.safetensors"
    save_file(state, half)
    save_file({key: value.float() for key, value in state.items()}, rounded)
    name, pixels = "open_clip:ViT-Test-quickgelu/openai", torch.randn(1, 3, 84, 84)

    found = load_backbone(name, image_size=84, weights=half)(pixels).tokens

    expected = load_backbone(name, image_size=84, weights=rounded)(pixels).tokens
    assert torch.equal(found, expected)


def test_open_clip_weights_of_another_model_are_refused(tiny_clip: Path) -> None:
    state = load_file(tiny_clip)
    del state["visual.ln_post.weight"]
    save_file(state, tiny_clip)

    with pytest.raises(BackboneError, match=r"does not fit .*Missing key.*visual\.ln_post\.weight"):
        load_backbone("open_clip:ViT-Test-quickgelu/openai", weights=tiny_clip)
