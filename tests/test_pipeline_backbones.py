"""timm backbones: the library's own forward pass, without prefix tokens, on the right layer."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.backbones.load import (
    Backbone,
    BackboneSpec,
    load_backbone,
)
from pipeline.backbones.undrawn import Undrawn
from spg_core.types import PatchGrid
from tests.random_weights import random_timm_weights

SHARED = Path(__file__).parents[1].parent / "shared"
VIT_TINY = SHARED / "weights" / "vit_tiny_patch16_224.safetensors"
needs_vit_tiny = pytest.mark.skipif(
    not VIT_TINY.is_file(), reason="the shared ViT-Tiny weights are not on this machine"
)

NAMED_TIMM = [
    ("dinov3", "vit_large_patch16_dinov3", 16, 5, True),
    ("timm:vit_large_patch16_dinov3", "vit_large_patch16_dinov3", 16, 5, True),
    ("timm:vit_large_patch14_dinov2", "vit_large_patch14_dinov2", 14, 1, False),
    ("timm:vit_large_patch16_siglip_384", "vit_large_patch16_siglip_384", 16, 0, True),
]
"""Name, timm's model, patch size, prefix tokens, and whether the token is taken after the norm."""


@pytest.fixture
def shrunk_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build every timm model with two narrow blocks: the real architecture in a second."""
    import timm

    small = functools.partial(timm.create_model, embed_dim=32, depth=2, num_heads=2)
    monkeypatch.setattr(timm, "create_model", small)


def library_forward(model: str, weights: Path, size: int) -> tuple[Any, Any]:
    """Build a timm model in the library's plain way, at an input size."""
    import timm

    with Undrawn():
        net = timm.create_model(
            model,
            pretrained=True,
            num_classes=0,
            img_size=size,
            pretrained_cfg_overlay={"file": str(weights), "custom_load": False},
        ).eval()
    return net, torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def check_named_timm(
    folder: Path, name: str, model: str, size: int, n_prefix: int, normed: bool
) -> Backbone:
    """Compare a named backbone at a non-default size with timm's own `forward_features`."""
    weights = random_timm_weights(folder, model)
    net, pixels = library_forward(model, weights, size)
    before_norm: list[Tensor] = []
    net.norm.register_forward_pre_hook(lambda _module, inputs: before_norm.append(inputs[0]))

    backbone = load_backbone(name, image_size=size, weights=weights, final_norm=normed)
    found = backbone(pixels)

    with torch.inference_mode():
        after_norm = net.forward_features(pixels)
    expected = after_norm if normed else before_norm[0]
    n_tokens = backbone.spec.grid.tokens_per_image
    assert expected.shape[1] == n_prefix + n_tokens
    torch.testing.assert_close(found.tokens, expected[:, n_prefix:])
    if n_prefix:
        torch.testing.assert_close(found.cls, expected[:, 0])
    else:
        assert found.cls is None
    assert backbone.spec.has_cls == bool(n_prefix)
    return backbone


@pytest.mark.usefixtures("shrunk_timm")
@pytest.mark.parametrize(("name", "model", "patch", "n_prefix", "normed"), NAMED_TIMM)
@pytest.mark.parametrize("rows", [3, 8])
def test_timm_tokens_are_the_librarys_own_forward_pass_without_prefix_tokens(
    tmp_path: Path, name: str, model: str, patch: int, n_prefix: int, normed: bool, rows: int
) -> None:
    backbone = check_named_timm(tmp_path, name, model, rows * patch, n_prefix, normed)

    assert backbone.spec.grid == PatchGrid(rows, rows)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model", "patch", "n_prefix", "normed"), NAMED_TIMM)
def test_full_size_timm_backbones_give_the_token_of_the_table(
    tmp_path: Path, name: str, model: str, patch: int, n_prefix: int, normed: bool
) -> None:
    backbone = check_named_timm(tmp_path, name, model, 6 * patch, n_prefix, normed)

    assert backbone.spec.d_model == 1024


@pytest.mark.usefixtures("shrunk_timm")
def test_a_register_token_is_no_class_token(tmp_path: Path) -> None:
    weights = random_timm_weights(tmp_path, "vit_base_patch16_reg4_gap_256")
    net, pixels = library_forward("vit_base_patch16_reg4_gap_256", weights, 64)

    found = load_backbone("timm:vit_base_patch16_reg4_gap_256", image_size=64, weights=weights)(
        pixels
    )

    with torch.inference_mode():
        expected = net.forward_features(pixels)
    assert found.cls is None
    torch.testing.assert_close(found.tokens, expected[:, 4:])


def test_final_norm_and_layer_choose_what_leaves_the_model(tmp_path: Path) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")
    net, pixels = library_forward("test_vit", weights, 64)
    seen: dict[int, Tensor] = {}
    for index in (2, 5):
        net.blocks[index].register_forward_hook(
            lambda _module, _inputs, output, index=index: seen.__setitem__(index, output)
        )
    with torch.inference_mode():
        net(pixels)

    def tokens(layer: int | None, final_norm: bool) -> Tensor:
        return load_backbone(
            "timm:test_vit",
            image_size=64,
            weights=weights,
            layer=layer,
            final_norm=final_norm,
        )(pixels).tokens

    torch.testing.assert_close(tokens(None, False), seen[5][:, 1:])
    torch.testing.assert_close(tokens(2, False), seen[2][:, 1:])
    with torch.inference_mode():
        torch.testing.assert_close(tokens(2, True), net.norm(seen[2])[:, 1:])


def test_no_weights_are_drawn_where_a_file_has_them(tmp_path: Path) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")
    before = torch.get_rng_state()

    load_backbone("timm:test_vit", weights=weights)

    assert torch.equal(torch.get_rng_state(), before)


def test_the_last_layer_by_number_is_the_default(tmp_path: Path) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")

    def spec(layer: int | None) -> BackboneSpec:
        return load_backbone("timm:test_vit", weights=weights, layer=layer).spec

    assert spec(5) == spec(None)
    assert spec(4) != spec(None)


def test_each_image_is_described_on_its_own(tmp_path: Path) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")
    backbone = load_backbone("timm:test_vit", image_size=64, weights=weights)
    pixels = torch.randn(3, 3, 64, 64)

    together = backbone(pixels).tokens

    for index in range(3):
        torch.testing.assert_close(backbone(pixels[index : index + 1]).tokens[0], together[index])


@needs_vit_tiny
def test_the_shared_vit_tiny_loads_strictly_at_448_pixels() -> None:
    backbone = load_backbone("timm:vit_tiny_patch16_224", image_size=448, weights=VIT_TINY)

    found = backbone(torch.zeros(1, 3, 448, 448))

    assert found.tokens.shape == (1, 28 * 28, 192)
    assert found.cls is not None
    assert found.tokens.dtype == torch.float32
    assert torch.isfinite(found.tokens).all()
    assert backbone.spec.mean == (0.5, 0.5, 0.5)


def test_a_torch_file_gives_the_same_tokens_but_another_digest(tmp_path: Path) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")
    torch_file = tmp_path / "weights.pth"
    torch.save({"state_dict": load_file(weights)}, torch_file)
    pixels = torch.randn(1, 3, 64, 64)

    one = load_backbone("timm:test_vit", image_size=64, weights=weights)
    two = load_backbone("timm:test_vit", image_size=64, weights=torch_file)

    assert torch.equal(one(pixels).tokens, two(pixels).tokens)
    assert one.spec.weights_sha256 != two.spec.weights_sha256
