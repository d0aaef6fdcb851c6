"""Several layers leave one forward pass, each with the bits it has alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.plain_vits import PLAIN
from pipeline.backbones.layers import Layers, choose_layers
from pipeline.backbones.load import Backbone, load_backbone
from pipeline.backbones.stored import load_stored_layers
from spg_core.errors import ArtifactError, ConfigError
from tests.narrow_presets import DEPTH, N_HEADS, WIDTH, shrunk  # noqa: F401
from tests.random_weights import random_timm_weights


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        (None, (23,)),
        (5, (5,)),
        (-1, (23,)),
        ("-24", (0,)),
        ("every:6", (5, 11, 17, 23)),
        ("last:4", (20, 21, 22, 23)),
        ((5, "11", -7, "every:12"), (5, 11, 17, 23)),
        ((11, 5, 11), (11, 5)),
    ],
)
def test_a_hand_worked_choice(asked: Layers, meant: tuple[int, ...]) -> None:
    assert choose_layers(asked, 24, "dinov3") == meant


@pytest.mark.parametrize("asked", [24, -25, "every:0", "every:25", "last:25", "first:2", "x", "5:"])
def test_a_block_that_a_model_has_not_is_refused(asked: Layers) -> None:
    with pytest.raises(ConfigError, match=rf"--layer {asked}: dinov3 has 24 blocks.*use 0 to 23"):
        choose_layers(asked, 24, "dinov3")


def require_same_bits(several: Backbone, alone: Sequence[Backbone], pixels: torch.Tensor) -> None:
    """Compare each layer of one forward pass with a forward pass of its own."""
    assert several.specs == tuple(one.spec for one in alone)
    for found, one in zip(several.layers(pixels), alone, strict=True):
        expected = one(pixels)
        assert torch.equal(found.tokens, expected.tokens)
        if found.cls is None or expected.cls is None:
            assert found.cls is expected.cls
        else:
            assert torch.equal(found.cls, expected.cls)


@pytest.mark.parametrize("final_norm", [True, False])
def test_layers_of_one_forward_pass_have_the_bits_of_each_alone(
    tmp_path: Path, final_norm: bool
) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")

    def loaded(layer: Layers) -> Backbone:
        return load_backbone(
            "timm:test_vit", image_size=64, weights=weights, layer=layer, final_norm=final_norm
        )

    alone = [loaded(layer) for layer in (4, 0, 5)]

    several, pixels = loaded([4, 0, -1]), torch.randn(5, 3, 64, 64)

    require_same_bits(several, alone, pixels)
    require_same_bits(several.only([1]), alone[1:2], pixels)
    assert several.only([0, 1, 2]) is several


@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("name", PLAIN)
def test_layers_of_a_preset_have_the_bits_of_each_alone(tmp_path: Path, name: str) -> None:
    size, weights = 6 * PLAIN[name].patch, tmp_path / "weights.pth"
    torch.manual_seed(3)
    torch.save(PLAIN[name].weights(PLAIN[name], WIDTH, DEPTH, N_HEADS), weights)

    def loaded(layer: Layers) -> Backbone:
        return load_backbone(name, image_size=size, weights=weights, layer=layer)

    require_same_bits(loaded("last:2"), [loaded(0), loaded(1)], torch.randn(3, 3, size, size))


def test_the_layers_that_guides_were_fitted_on_load_as_one_backbone(tmp_path: Path) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")
    specs = [
        load_backbone("timm:test_vit", image_size=64, weights=weights, layer=layer).spec
        for layer in (None, 1)
    ]
    other = load_backbone("timm:test_vit", image_size=32, weights=weights, layer=2).spec

    several = load_stored_layers(specs, str(weights), "cpu")

    assert several.specs == tuple(specs)
    assert len(several.layers(torch.randn(2, 3, 64, 64))) == 2
    with pytest.raises(ArtifactError, match="height is 64 in one and 32 in the other"):
        load_stored_layers([*specs, other], str(weights), "cpu")


def test_gabor_is_one_layer() -> None:
    with pytest.raises(ConfigError, match="--layer every:2 does not apply to gabor"):
        load_backbone("gabor", layer="every:2")
    assert len(load_backbone("gabor", image_size=96).layers(torch.zeros(1, 3, 96, 96))) == 1
