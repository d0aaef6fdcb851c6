"""The four presets give the authors' tokens: compared with a forward pass written down plainly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch._subclasses import FakeTensorMode

from benchmarks.plain_vits import PLAIN, pixels_of
from cache.key import cache_key, explain_difference
from pipeline.backbones.load import Backbone, load_backbone
from pipeline.backbones.position_embedding import resize_positions
from pipeline.backbones.preprocess import preprocess, squash
from pipeline.backbones.presets import PLAIN_BICUBIC, PLAIN_BILINEAR
from spg_core.errors import BackboneError
from spg_core.types import PatchGrid
from tests.narrow_presets import DEPTH, N_HEADS, WIDTH, shrunk  # noqa: F401


def loaded(
    folder: Path, name: str, image_size: int | None = None
) -> tuple[Backbone, dict[str, Tensor]]:
    """Give a preset with random weights, and these."""
    torch.manual_seed(11)
    weights = PLAIN[name].weights(PLAIN[name], WIDTH, DEPTH, N_HEADS)
    torch.save(weights, folder / f"{name}.pth")
    path = folder / f"{name}.pth"
    return load_backbone(name, weights=path, image_size=image_size), weights


def difference(found: Tensor, expected: Tensor) -> float:
    """Give the largest difference relative to the size of the tokens."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_a_preset_of_full_size_gives_the_plain_tokens(tmp_path: Path, name: str) -> None:
    plain = PLAIN[name]
    size = 6 * plain.patch
    weights = plain.weights(plain, 1024, 24, 16)
    torch.save(weights, tmp_path / "weights.pth")
    pixels = torch.randn(2, 3, size, size)

    backbone = load_backbone(name, image_size=size, weights=tmp_path / "weights.pth")
    found = backbone(pixels).tokens

    with torch.inference_mode():
        expected = plain.tokens(plain, weights, pixels, 16)
    assert found.shape == (2, 36, 768 if name == "openclip" else 1024)
    assert difference(found, expected) < 1e-5


@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("name", PLAIN)
def test_a_preset_gives_the_tokens_of_the_plain_forward_pass(tmp_path: Path, name: str) -> None:
    plain = PLAIN[name]
    backbone, weights = loaded(tmp_path, name)
    pixels = torch.randn(1, 3, plain.size, plain.size)

    found = backbone(pixels).tokens

    with torch.inference_mode():
        expected = plain.tokens(plain, weights, pixels, N_HEADS)
    side = plain.size // plain.patch
    assert backbone.spec.grid == PatchGrid(side, side)
    assert found.shape == expected.shape
    assert difference(found, expected) < 1e-5


@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("name", PLAIN)
def test_a_preset_follows_the_plain_forward_pass_at_another_size(tmp_path: Path, name: str) -> None:
    plain = PLAIN[name]
    size = 11 * plain.patch
    backbone, weights = loaded(tmp_path, name, image_size=size)
    pixels = torch.randn(2, 3, size, size)

    found = backbone(pixels).tokens

    with torch.inference_mode():
        assert difference(found, plain.tokens(plain, weights, pixels, N_HEADS)) < 1e-5


@pytest.mark.usefixtures("shrunk")
def test_dinov3_turns_the_tokens_of_a_grid_that_is_not_square(tmp_path: Path) -> None:
    backbone, weights = loaded(tmp_path, "dinov3")
    pixels = torch.randn(1, 3, 48, 112)

    with torch.inference_mode():
        [(found, _)] = backbone.model(pixels)
        expected = PLAIN["dinov3"].tokens(PLAIN["dinov3"], weights, pixels, N_HEADS)
    assert difference(found, expected) < 1e-5


@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("size", [(700, 500), (448, 448), (333, 1024), (90, 61)])
@pytest.mark.parametrize("name", PLAIN)
def test_pixels_are_those_of_torchvisions_transforms(
    tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    backbone, _ = loaded(tmp_path, name)
    values = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(values)

    found = preprocess(image, backbone.spec)

    torch.testing.assert_close(found, pixels_of(image, PLAIN[name]), rtol=1e-6, atol=1e-6)
    if PLAIN[name].bicubic:
        side = PLAIN[name].size
        resized = image.resize((side, side), Image.Resampling.BICUBIC)
        assert np.array_equal(squash(image, backbone.spec), np.asarray(resized))
    else:
        levels = squash(image, backbone.spec) * 255
        assert levels.dtype == np.float32
        assert size == (448, 448) or np.abs(levels - np.round(levels)).max() > 0.3


@pytest.mark.parametrize(
    ("how", "mode"), [(PLAIN_BICUBIC, "bicubic"), (PLAIN_BILINEAR, "bilinear")]
)
def test_positions_are_resized_to_a_grid_that_is_not_square(how: str, mode: str) -> None:
    table = torch.randn(1, 1 + 36, 5)

    found = resize_positions(table, 1, PatchGrid(4, 9), how, "x")

    image = table[0, 1:].T.reshape(1, 5, 6, 6)
    expected = torch.nn.functional.interpolate(image, (4, 9), mode=mode)
    assert torch.equal(found[0, 0], table[0, 0])
    torch.testing.assert_close(found[0, 1:], expected[0].flatten(1).T)


def test_bicubic_positions_weigh_their_neighbours_as_by_hand() -> None:
    """Half-way between two of four points, a = -0.75 weighs them -3, 19, 19, -3 thirty-seconds."""
    peaks = torch.eye(16).reshape(16, 16)

    found = resize_positions(peaks, 0, PatchGrid(2, 2), PLAIN_BICUBIC, "x")

    first = torch.tensor([-3 + 19, 19, -3, 0]) / 32  # what lies before the first counts as it
    torch.testing.assert_close(found[0].reshape(4, 4), first[:, None] * first[None, :])


def test_positions_of_no_square_grid_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"a file: its .* 38 positions, 1 of .* no square"):
        resize_positions(torch.zeros(38, 4), 1, PatchGrid(2, 2), PLAIN_BICUBIC, "a file")


# --- the key ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("shrunk")
def test_a_preset_and_its_librarys_own_way_never_share_a_key_and_say_why(tmp_path: Path) -> None:
    dinov2, _ = loaded(tmp_path, "dinov2")
    library = load_backbone(
        "timm:vit_large_patch14_dinov2.lvd142m",
        image_size=448,
        final_norm=False,
        weights=tmp_path / "dinov2.pth",
    )

    ours, theirs = dinov2.spec.covers(), library.spec.covers()

    assert cache_key(ours) != cache_key(theirs)
    assert explain_difference(ours, theirs) == [
        'activation is "GELU" in one and "as the library does" in the other',
        'position_embedding is "bicubic, a = -0.75, not antialiased" in one and '
        '"as the library does" in the other',
    ]


@pytest.mark.usefixtures("shrunk")
def test_the_presets_state_how_their_tokens_are_made(tmp_path: Path) -> None:
    stated = {}
    for name in PLAIN:
        spec = loaded(tmp_path, name)[0].spec
        stated[name] = (spec.resize_values, spec.resize_filter, spec.position_embedding)
        assert spec.covers()["activation"] == spec.activation
        assert spec.compute_dtype == "float32"

    assert stated == {
        "dinov3": ("float", "bilinear", "rotary, nothing to resize"),
        "dinov2": ("8-bit", "bicubic", "bicubic, a = -0.75, not antialiased"),
        "siglip": ("8-bit", "bicubic", "bicubic, a = -0.75, not antialiased"),
        "openclip": ("8-bit", "bicubic", "bilinear, not antialiased"),
    }


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch knows no CUDA")
@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", PLAIN)
def test_on_a_pretended_gpu_nothing_is_mixed_and_the_residual_stream_stays_in_float32(
    tmp_path: Path, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors without numbers go through: devices and types are those of a real GPU."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: True)
    backbone, _ = loaded(tmp_path, name, image_size=4 * PLAIN[name].patch)
    seen: list[torch.dtype] = []
    products: list[torch.dtype] = []
    for block in blocks_of(backbone):
        block.register_forward_hook(lambda _block, _inputs, output: seen.append(output.dtype))
        first = block.mlp.c_fc if name == "openclip" else block.mlp.fc1
        first.register_forward_hook(lambda _layer, _inputs, output: products.append(output.dtype))

    spec = backbone.spec
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in backbone.model.modules():
            parts: list[dict[str, Any]] = [module._parameters, module._buffers]
            for tensors in parts:
                some = {key: value for key, value in tensors.items() if value is not None}
                tensors.update({key: pretended(value) for key, value in some.items()})
        backbone.device, backbone.specs = (
            torch.device("cuda"),
            (replace(spec, compute_dtype=dtype),),
        )
        found = backbone(torch.zeros(2, 3, spec.height, spec.width)).tokens

    assert (found.device.type, found.dtype) == ("cuda", torch.float32)
    assert seen == [torch.float32] * DEPTH
    computed = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype, torch.float32)
    assert products == [computed] * DEPTH


def pretended(tensor: Tensor) -> Tensor:
    """Give a tensor of the same kind on a GPU that is not there."""
    on_gpu = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    return torch.nn.Parameter(on_gpu, requires_grad=False) if is_parameter else on_gpu


def blocks_of(backbone: Backbone) -> Any:
    model: Any = backbone.model
    is_clip = backbone.spec.library == "open_clip"
    return model.visual.transformer.resblocks if is_clip else model.model.blocks


@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("name", PLAIN)
def test_in_bfloat16_the_residual_stream_stays_in_float32(tmp_path: Path, name: str) -> None:
    backbone, _ = loaded(tmp_path, name, image_size=4 * PLAIN[name].patch)
    seen: list[torch.dtype] = []
    for block in blocks_of(backbone):
        block.register_forward_hook(lambda _block, _inputs, output: seen.append(output.dtype))

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        backbone.model(torch.randn(1, 3, 4 * PLAIN[name].patch, 4 * PLAIN[name].patch))

    assert seen == [torch.float32] * DEPTH
