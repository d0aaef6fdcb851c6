import functools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.backbones.load import (
    Backbone,
    BackboneSpec,
    load_backbone,
    slug,
    spec_from_covers,
)
from pipeline.backbones.open_clip_models import _check_activation
from spg_core.errors import BackboneError, ConfigError
from spg_core.types import PatchGrid

SHARED = Path(__file__).parents[1].parent / "shared"
VIT_TINY = SHARED / "weights" / "vit_tiny_patch16_224.safetensors"
needs_vit_tiny = pytest.mark.skipif(
    not VIT_TINY.is_file(), reason="the shared ViT-Tiny weights are not on this machine"
)

NAMED_TIMM = [
    ("dinov3", "vit_large_patch16_dinov3", 16, 5, True),
    ("dinov2", "vit_large_patch14_dinov2", 14, 1, False),
    ("siglip", "vit_large_patch16_siglip_384", 16, 0, True),
]
"""Name, timm's model, patch size, prefix tokens, and whether the token is taken after the norm."""


@pytest.fixture
def shrunk_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build every timm model with two narrow blocks: the real architecture in a second."""
    import timm

    small = functools.partial(timm.create_model, embed_dim=32, depth=2, num_heads=2)
    monkeypatch.setattr(timm, "create_model", small)


def random_timm_weights(folder: Path, model: str, **options: Any) -> Path:
    """Write the random state dict of a timm model, its classifier included, to a file."""
    import timm

    torch.manual_seed(7)
    net = timm.create_model(model, pretrained=False, **options)
    # timm starts some tensors at zero or one, which would hide that they are not loaded.
    state = {
        key: value + 0.02 * torch.randn_like(value) if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }
    path = folder / f"{model}.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def library_forward(model: str, weights: Path, size: int) -> tuple[Any, Any]:
    """Build a timm model in the library's plain way, at an input size."""
    import timm

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

    backbone = load_backbone(name, image_size=size, weights=weights)
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


# --- open_clip -------------------------------------------------------------------------------


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
    from pipeline.backbones import load as backbones

    row = replace(backbones._TABLE["openclip"], model="open_clip:ViT-Test-quickgelu/openai")
    monkeypatch.setitem(backbones._TABLE, "openclip", row)
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


def test_open_clip_weights_of_another_model_are_refused(tiny_clip: Path) -> None:
    state = load_file(tiny_clip)
    del state["visual.ln_post.weight"]
    save_file(state, tiny_clip)

    with pytest.raises(BackboneError, match=r"does not fit .*Missing key.*visual\.ln_post\.weight"):
        load_backbone("open_clip:ViT-Test-quickgelu/openai", weights=tiny_clip)


@pytest.mark.slow
def test_named_openclip_gives_the_token_of_the_table(tmp_path: Path) -> None:
    import open_clip

    torch.manual_seed(2)
    net = open_clip.create_model("ViT-L-14-336-quickgelu")
    weights = tmp_path / "clip.safetensors"
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, weights)
    visual = open_clip_visual("ViT-L-14-336-quickgelu", weights, 112)
    visual.output_tokens = True
    pixels = torch.randn(2, 3, 112, 112)

    found = load_backbone("openclip", image_size=112, weights=weights)(pixels)

    with torch.inference_mode():
        _, normed = visual(pixels)
        expected = normed @ visual.proj
    assert found.tokens.shape == (2, 64, 768)
    torch.testing.assert_close(found.tokens, expected)


# --- gabor -----------------------------------------------------------------------------------


def test_gabor_needs_no_file_and_has_the_grid_of_its_size() -> None:
    assert load_backbone("gabor").spec.grid == PatchGrid(28, 28)
    backbone = load_backbone("gabor", image_size=96)

    found = backbone(torch.rand(2, 3, 96, 96) * 2 - 1)

    assert found.tokens.shape == (2, 36, backbone.spec.d_model)
    assert found.cls is None


def test_gabor_refuses_what_only_a_learned_backbone_has() -> None:
    with pytest.raises(ConfigError, match="--layer 3 does not apply to gabor"):
        load_backbone("gabor", layer=3)
    with pytest.raises(ConfigError, match=r"--weights .* does not apply to gabor"):
        load_backbone("gabor", weights=Path("x.safetensors"))
    with pytest.raises(ConfigError, match=r"image size 100 .* patch size 16; use 96 or 112"):
        load_backbone("gabor", image_size=100)


# --- specs -----------------------------------------------------------------------------------

SPEC = BackboneSpec(
    name="timm:vit_tiny_patch16_224",
    library="timm",
    model="vit_tiny_patch16_224",
    weights_sha256="0" * 64,
    layer=7,
    final_norm=True,
    projection=False,
    height=96,
    width=64,
    grid=PatchGrid(6, 4),
    d_model=192,
    has_cls=True,
    resize_filter="bicubic",
    mean=(0.5, 0.4, 0.3),
    std=(0.5, 0.25, 0.1),
    compute_dtype="float32",
    exif=False,
)


@given(
    layer=st.none() | st.integers(0, 40),
    rows=st.integers(1, 99),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_what_a_key_covers_rebuilds_the_spec(
    layer: int | None, rows: int, mean: tuple[float, float, float]
) -> None:
    spec = replace(SPEC, layer=layer, grid=PatchGrid(rows, 4), mean=mean)

    stored = json.loads(json.dumps(spec.covers()))

    assert spec_from_covers(stored, spec.name) == spec


def test_a_key_does_not_cover_how_the_backbone_was_named() -> None:
    assert replace(SPEC, name="other").covers() == SPEC.covers()


def test_a_damaged_description_is_refused() -> None:
    covers = SPEC.covers()
    del covers["mean"]

    with pytest.raises(BackboneError, match="description of backbone 'x' cannot be read"):
        spec_from_covers(covers, "x")


def test_slug_is_a_folder_name() -> None:
    assert slug("open_clip:ViT-B-32/openai") == "open_clip-ViT-B-32-openai"
    assert slug("dinov3") == "dinov3"


# --- refusals --------------------------------------------------------------------------------


def test_an_image_size_that_patches_do_not_fill_names_the_nearest_that_do() -> None:
    with pytest.raises(ConfigError, match=r"image size 450 .* patch size 14; use 448 or 462"):
        load_backbone("dinov2", image_size=450)
    with pytest.raises(ConfigError, match="use 16"):
        load_backbone("dinov3", image_size=7)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 12 blocks, counted from 0; use 0 to 11"):
        load_backbone("timm:vit_tiny_patch16_224", layer=12)
    with pytest.raises(ConfigError, match="no backbone 'resnet'; use dinov3"):
        load_backbone("resnet")
    with pytest.raises(ConfigError, match="resize filter 'nearest'"):
        load_backbone("dinov3", resize_filter="nearest")
    with pytest.raises(ConfigError, match="compute dtype bfloat16 is for GPUs"):
        load_backbone("dinov3", compute_dtype="bfloat16")
    with pytest.raises(ConfigError, match="device is auto, cpu, cuda or cuda:N, got 'gpu'"):
        load_backbone("dinov3", device="gpu")
    with pytest.raises(ConfigError, match="norms its pooled output, not its tokens"):
        load_backbone("timm:vit_base_patch16_reg4_gap_256", final_norm=True)


def test_models_without_a_patch_grid_are_refused() -> None:
    with pytest.raises(BackboneError, match="is a ResNet, which has no single grid"):
        load_backbone("timm:resnet18")
    with pytest.raises(BackboneError, match="timm has no model 'vit_tiny_patch17_224'"):
        load_backbone("timm:vit_tiny_patch17_224")


def test_weights_that_do_not_fit_are_refused_by_key(tmp_path: Path) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")
    state = load_file(weights)
    lacking = tmp_path / "lacking.safetensors"
    save_file({key: value for key, value in state.items() if key != "norm.bias"}, lacking)
    extra = tmp_path / "extra.safetensors"
    save_file({**state, "stray.weight": torch.zeros(2)}, extra)

    with pytest.raises(BackboneError, match=r"does not fit .*Missing key.*norm\.bias"):
        load_backbone("timm:test_vit", weights=lacking)
    with pytest.raises(BackboneError, match=r"does not fit .*Unexpected key.*stray\.weight"):
        load_backbone("timm:test_vit", weights=extra)
    narrow = tmp_path / "narrow.safetensors"
    save_file({**state, "norm.bias": torch.zeros(3)}, narrow)
    with pytest.raises(BackboneError, match=r"does not fit .*size mismatch for norm\.bias"):
        load_backbone("timm:test_vit", weights=narrow)


class NotATensor:
    """Something that a weights file must not bring to life."""


def test_unreadable_weights_files_are_refused(tmp_path: Path) -> None:
    absent = tmp_path / "absent.safetensors"
    empty = tmp_path / "empty.pth"
    empty.touch()
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\xff" * 100)
    pickled = tmp_path / "pickled.pth"
    torch.save({"state_dict": NotATensor()}, pickled)

    for path, message in (
        (absent, "no weights file at"),
        (empty, "is empty"),
        (torn, "cannot be read as weights"),
        (pickled, "weights_only=True"),
    ):
        with pytest.raises(BackboneError, match=message):
            load_backbone("timm:test_vit", weights=path)


def test_pixels_of_another_size_are_refused() -> None:
    backbone = load_backbone("gabor", image_size=96)

    with pytest.raises(BackboneError, match=r"expected \(B, 3, 96, 96\)"):
        backbone(torch.zeros(1, 3, 80, 96))


def test_tokens_that_do_not_fill_the_grid_are_refused() -> None:
    good = load_backbone("gabor", image_size=96)
    bad = Backbone(good.model, replace(good.spec, grid=PatchGrid(5, 7)), good.device)

    with pytest.raises(BackboneError, match="5 x 7 patch grid; were the prefix tokens dropped"):
        bad(torch.zeros(1, 3, 96, 96))


# --- the hub, without a network --------------------------------------------------------------


def test_hub_weights_come_from_a_filled_cache_and_have_the_files_own_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = random_timm_weights(tmp_path, "vit_tiny_patch16_224")
    repository = tmp_path / "hub" / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    cached = repository / "snapshots" / "abc" / "model.safetensors"
    cached.write_bytes(weights.read_bytes())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    from_hub = load_backbone("timm:vit_tiny_patch16_224")
    from_file = load_backbone("timm:vit_tiny_patch16_224", weights=weights)

    assert from_hub.spec == from_file.spec


def test_weights_that_cannot_be_had_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(url: str) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    with pytest.raises(BackboneError) as refusal:
        load_backbone("dinov3")

    message = str(refusal.value)
    assert "\n" not in message
    for part in (
        "Name or service",
        "--weights FILE",
        "HF_HOME",
        "HF_ENDPOINT",
        "accept its licence",
    ):
        assert part in message


def test_a_hub_repository_without_safetensors_gives_its_torch_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    from pipeline.backbones.weights import hub_file

    local = tmp_path / "pytorch_model.bin"
    local.write_bytes(b"x")

    def metadata(url: str) -> None:
        if url.endswith(".safetensors"):
            raise EntryNotFoundError("no such file in the repository")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _repo, name: tmp_path / name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    found = hub_file("a/b", ("model.safetensors", "pytorch_model.bin"), name="timm:x")

    assert found == local


def test_importing_backbones_loads_no_model_library() -> None:
    import subprocess

    code = "import sys, pipeline.backbones.load; print({'timm', 'open_clip'} & set(sys.modules))"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "set()"
