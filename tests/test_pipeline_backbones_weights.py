"""Weights files as people have them: read for what their bytes are, or refused by name."""

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
    import timm

    small = functools.partial(timm.create_model, embed_dim=32, depth=2, num_heads=2)
    monkeypatch.setattr(timm, "create_model", small)


# --- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.usefixtures("shrunk_timm")
def test_weights_of_any_float_type_load_at_another_size(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = random_timm_weights(tmp_path, "vit_large_patch14_dinov2")
    state = {key: value.to(dtype) for key, value in load_file(weights).items()}
    stored, rounded = tmp_path / "stored.safetensors", tmp_path / "rounded.safetensors"
    save_file(state, stored)
    save_file({key: value.float() for key, value in state.items()}, rounded)
    pixels = torch.randn(1, 3, 70, 70)

    found = load_backbone("dinov2", image_size=70, weights=stored)(pixels).tokens

    expected = load_backbone("dinov2", image_size=70, weights=rounded)(pixels).tokens
    assert torch.equal(found, expected)


# --- DINOv3's biases of queries and values ---------------------------------------------------

N_HEADS, WIDTH = 2, 32


def meta_dinov3(folder: Path, query: float, key: float, value: float, masked: bool) -> Path:
    """Write random weights as Meta's DINOv3 code stores them, with the given sizes of biases."""
    weights = load_file(random_timm_weights(folder, "vit_large_patch16_dinov3"))
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        name = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        state[name.replace("reg_token", "storage_tokens")] = tensor
    for block in range(2):
        sizes = torch.tensor([query, key, value]).repeat_interleave(WIDTH)
        state[f"blocks.{block}.attn.qkv.bias"] = torch.randn(3 * WIDTH) * sizes
        if masked:
            mask = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(WIDTH)
            state[f"blocks.{block}.attn.qkv.bias_mask"] = mask
    state["mask_token"] = torch.randn(1, WIDTH)
    state["rope_embed.periods"] = torch.rand(4)
    path = folder / "dinov3.pth"
    torch.save(state, path)
    return path


def first_attention(weights: Path) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Run the first block's attention on noise; give its output and its two biases."""
    backbone = load_backbone("dinov3", image_size=48, weights=weights)
    model: Any = backbone.model.model
    attention = model.blocks[0].attn
    noise = torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        return attention(noise), attention.q_bias, attention.v_bias


@pytest.mark.usefixtures("shrunk_timm")
def test_biases_of_dinov3_count_where_they_are_not_zero(tmp_path: Path) -> None:
    weights = meta_dinov3(tmp_path, query=1, key=1, value=1, masked=True)
    state = torch.load(weights)
    fused = state["blocks.0.attn.qkv.bias"] * state["blocks.0.attn.qkv.bias_mask"]

    found, query, value = first_attention(weights)

    assert query is not None
    assert value is not None
    assert torch.equal(query, fused[:WIDTH])
    assert torch.equal(value, fused[2 * WIDTH :])
    noise = torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(3))
    qkv = noise @ state["blocks.0.attn.qkv.weight"].T + fused
    q, k, v = (part.reshape(5, N_HEADS, -1).transpose(0, 1) for part in qkv[0].chunk(3, -1))
    mixed = torch.softmax(q @ k.mT / (WIDTH // N_HEADS) ** 0.5, -1) @ v
    expected = mixed.transpose(0, 1).reshape(5, WIDTH) @ state["blocks.0.attn.proj.weight"].T
    torch.testing.assert_close(found[0], expected + state["blocks.0.attn.proj.bias"])


@pytest.mark.usefixtures("shrunk_timm")
def test_biases_of_zero_change_nothing_and_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, query, value = first_attention(meta_dinov3(tmp_path, query=0, key=1, value=0, masked=True))

    assert query is None
    assert value is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.usefixtures("shrunk_timm")
def test_biases_by_timms_names_count_where_they_are_not_zero(tmp_path: Path, size: int) -> None:
    state = load_file(random_timm_weights(tmp_path, "vit_large_patch16_dinov3_qkvb"))
    state = {key: value * (size if key.endswith("_bias") else 1) for key, value in state.items()}
    save_file(state, tmp_path / "timm.safetensors")

    _, query, value = first_attention(tmp_path / "timm.safetensors")

    if query is None or value is None:
        assert (query, value, size) == (None, None, 0)
    else:
        assert torch.equal(query, state["blocks.0.attn.q_bias"])
        assert torch.equal(value, state["blocks.0.attn.v_bias"])
        assert size == 1


@pytest.mark.usefixtures("shrunk_timm")
def test_biases_of_keys_have_no_place_and_are_refused(tmp_path: Path) -> None:
    weights = meta_dinov3(tmp_path, query=1, key=1, value=1, masked=False)

    with pytest.raises(BackboneError, match=r"blocks\.0\.attn\.qkv\.bias holds biases for keys"):
        load_backbone("dinov3", image_size=48, weights=weights)
