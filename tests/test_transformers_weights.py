"""Weights that transformers saved: its own models give the tokens, ours must give the same."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.backbones.load import load_backbone
from spg_core.errors import BackboneError

transformers: Any = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'spg-pipe[transformers]'"
)

WIDTH, DEPTH, N_HEADS = 64, 2, 2
SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": N_HEADS,
    "intermediate_size": 4 * WIDTH,
}


@pytest.fixture(autouse=True)
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the presets with two narrow blocks; patches, sizes and grids are the real ones."""
    import timm
    from open_clip import factory

    small = functools.partial(
        timm.create_model, embed_dim=WIDTH, depth=DEPTH, num_heads=N_HEADS, mlp_ratio=4
    )
    monkeypatch.setattr(timm, "create_model", small)
    name = "ViT-L-14-336-quickgelu"
    real = factory._MODEL_CONFIGS[name]
    vision = {**real["vision_cfg"], "width": WIDTH, "layers": DEPTH, "head_width": WIDTH // N_HEADS}
    monkeypatch.setitem(
        factory._MODEL_CONFIGS, name, {**real, "embed_dim": 48, "vision_cfg": vision}
    )


def randomised(model: Any) -> Any:
    """Fill every parameter with noise, so that none of them can be lost unseen."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(offset + 0.15 * torch.randn_like(parameter))
    return model.eval()


def dinov2(registers: bool = False) -> tuple[Any, Callable[[Any, Tensor], Tensor]]:
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{kind}Config")(**SHAPE, image_size=518, patch_size=14)
    n_prefix = 5 if registers else 1

    def tokens(model: Any, pixels: Tensor) -> Tensor:
        found: Tensor = model(pixels, output_hidden_states=True).hidden_states[-1]
        return found[:, n_prefix:]

    return getattr(transformers, f"{kind}Model")(config), tokens


def dinov3(**more: Any) -> tuple[Any, Callable[[Any, Tensor], Tensor]]:
    config = transformers.DINOv3ViTConfig(
        **SHAPE, image_size=224, patch_size=16, num_register_tokens=4, **more
    )
    return transformers.DINOv3ViTModel(config), lambda model, pixels: model(
        pixels
    ).last_hidden_state[:, 5:]


def siglip() -> tuple[Any, Callable[[Any, Tensor], Tensor]]:
    config = transformers.SiglipVisionConfig(**SHAPE, image_size=384, patch_size=16)
    return transformers.SiglipVisionModel(
        config
    ), lambda model, pixels: model(pixels, interpolate_pos_encoding=True).last_hidden_state


def clip() -> tuple[Any, Callable[[Any, Tensor], Tensor]]:
    config = transformers.CLIPVisionConfig(
        **SHAPE, image_size=336, patch_size=14, projection_dim=48
    )

    def tokens(model: Any, pixels: Tensor) -> Tensor:
        hidden = model(pixels).last_hidden_state[:, 1:]
        found: Tensor = model.visual_projection(model.vision_model.post_layernorm(hidden))
        return found

    return transformers.CLIPVisionModelWithProjection(config), tokens


MODELS: dict[str, tuple[Callable[[], Any], str, int]] = {
    "DINOv2": (dinov2, "dinov2", 448),
    "DINOv2 with registers": (
        lambda: dinov2(registers=True), "timm:vit_large_patch14_reg4_dinov2", 518,
    ),
    "DINOv3": (dinov3, "dinov3", 448),
    "DINOv3 with biases of keys": (lambda: dinov3(key_bias=True), "dinov3", 224),
    "SigLIP": (siglip, "siglip", 448),
    "CLIP": (clip, "openclip", 336),
}  # fmt: skip
"""What it is, the name it loads under, and an input size."""


@pytest.mark.parametrize("kind", [kind for kind in MODELS if "keys" not in kind])
def test_a_models_tokens_are_its_own(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, name, size = MODELS[kind]
    model, tokens = make()
    randomised(model).save_pretrained(tmp_path)
    if kind in ("SigLIP", "CLIP"):  # as earlier versions of transformers saved them
        state = load_file(tmp_path / "model.safetensors")
        prefix = "vision_model." if any("vision_model" in key for key in state) else ""
        state[f"{prefix}embeddings.position_ids"] = torch.arange(576)[None]
        save_file(state, tmp_path / "model.safetensors")
    pixels = torch.randn(1, 3, size, size)
    capsys.readouterr()

    backbone = load_backbone(
        name, image_size=size, weights=tmp_path / "model.safetensors",
        final_norm=False if "dinov2" in name else None,
    )  # fmt: skip
    found = backbone(pixels).tokens

    with torch.inference_mode():
        expected = tokens(model, pixels)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert capsys.readouterr().out == ""


def test_biases_that_dinov3_has_no_place_for_are_refused(tmp_path: Path) -> None:
    make, name, size = MODELS["DINOv3 with biases of keys"]
    randomised(make()[0]).save_pretrained(tmp_path)

    with pytest.raises(BackboneError, match="holds biases for keys that are not 0"):
        load_backbone(name, image_size=size, weights=tmp_path / "model.safetensors")


def whole(kind: str) -> tuple[Any, Any, str, int]:
    """Give a model with a second tower or a head, the part that is meant, and its preset."""
    text = {
        **SHAPE,
        "vocab_size": 50,
        "max_position_embeddings": 8,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    match kind:
        case "CLIP":
            vision = {**SHAPE, "image_size": 336, "patch_size": 14}
            config = transformers.CLIPConfig(
                vision_config=vision, text_config=text, projection_dim=48
            )
            model = transformers.CLIPModel(config)
            return model, model.vision_model, "openclip", 336
        case "SigLIP":
            vision = {**SHAPE, "image_size": 384, "patch_size": 16}
            config = transformers.SiglipConfig(vision_config=vision, text_config=text)
            model = transformers.SiglipModel(config)
            return model, model.vision_model, "siglip", 384
        case _:
            config = transformers.Dinov2Config(**SHAPE, image_size=518, patch_size=14)
            model = transformers.Dinov2ForImageClassification(config)
            return model, model.dinov2, "dinov2", 518


@pytest.mark.parametrize("kind", ["CLIP", "SigLIP", "DINOv2"])
def test_a_second_tower_or_a_head_stands_beside_the_backbone(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    model, part, name, size = whole(kind)
    randomised(model).save_pretrained(tmp_path)
    pixels = torch.randn(1, 3, size, size)

    found = load_backbone(name, image_size=size, weights=tmp_path / "model.safetensors")(pixels)

    with torch.inference_mode():
        expected = part(pixels, output_hidden_states=True).hidden_states[-1]
        if kind == "SigLIP":
            expected = part.post_layernorm(expected)
        elif kind == "CLIP":
            expected = model.visual_projection(part.post_layernorm(expected[:, 1:]))
        else:
            expected = expected[:, 1:]
    assert float((found.tokens - expected).abs().max() / expected.abs().max()) < 1e-5


def test_a_model_in_several_files_is_the_model_in_one(tmp_path: Path) -> None:
    model = randomised(dinov2()[0])
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "several", max_shard_size="200KB")
    size, pixels = 84, torch.randn(1, 3, 84, 84)
    index = tmp_path / "several" / "model.safetensors.index.json"
    assert len(list(index.parent.glob("model-*.safetensors"))) > 2

    several = load_backbone("dinov2", image_size=size, weights=index)
    one = load_backbone("dinov2", image_size=size, weights=tmp_path / "one" / "model.safetensors")

    assert torch.equal(several(pixels).tokens, one(pixels).tokens)
