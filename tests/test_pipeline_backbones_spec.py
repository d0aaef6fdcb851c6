"""What describes a backbone, what needs no weights, and everything that is refused."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from cache.key import cache_key
from pipeline.backbones.load import (
    Backbone,
    BackboneSpec,
    load_backbone,
    slug,
    spec_from_covers,
)
from pipeline.backbones.preprocess import preprocess
from pipeline.backbones.spec import require_same_tokens
from pipeline.backbones.stored import load_stored_layers
from spg_core.errors import ArtifactError, BackboneError, ConfigError
from spg_core.types import PatchGrid
from tests.random_weights import random_timm_weights


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
    rows=st.integers(1, 96),
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


def test_a_cache_that_does_not_state_how_its_tokens_were_made_keeps_its_key() -> None:
    """As all did before `resize_values`, `position_embedding` and `activation` were stated."""
    old = SPEC.covers()
    assert not {"resize_values", "position_embedding", "activation"} & old.keys()

    spec = spec_from_covers(old, SPEC.name)

    assert spec.covers() == old
    pixels = preprocess(Image.new("RGB", (9, 7), (10, 20, 30)), spec)
    stated = replace(SPEC, resize_values="8-bit", position_embedding="x", activation="y")
    assert torch.equal(pixels, preprocess(Image.new("RGB", (9, 7), (10, 20, 30)), stated))


def test_an_old_cache_and_a_new_one_are_never_taken_for_one(tmp_path: Path) -> None:
    new = load_backbone("timm:test_vit", weights=random_timm_weights(tmp_path, "test_vit")).spec
    old = replace(new, resize_values=None, position_embedding=None, activation=None)

    assert cache_key(old.covers()) != cache_key(new.covers())
    with pytest.raises(ArtifactError, match=r"only the second states activation \("):
        require_same_tokens(old.covers(), new.covers(), "the old", "the new")
    with pytest.raises(ArtifactError, match="only the second states position_embedding"):
        load_stored_layers([old], str(tmp_path / "test_vit.safetensors"), "cpu")


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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("vit_tiny", "timm:vit_tiny_patch16_224"),
        ("timm:vit_tiny", "timm:vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224", "timm:vit_tiny_patch16_224"),
        ("timm/vit_tiny_patch16_224.augreg_in21k", "timm:vit_tiny_patch16_224.augreg_in21k"),
        ("timm:vit_tiny_patch17_224", "timm:vit_tiny_patch16_224"),
        ("ViT-Base-Patch16-224", "timm:vit_base_patch16_224"),
        ("DINO-v2", "dinov2"),
        ("dinov3_vitl16", "dinov3"),
        ("facebook/dinov2-large", "dinov2"),
        ("google/siglip-large-patch16-384", "siglip"),
        ("open-clip", "openclip"),
        ("clip", "openclip"),
        ("gabour", "gabor"),
        ("ViT-B-32", "open_clip:ViT-B-32-quickgelu/openai"),
        ("open_clip:ViT-B32/laion2b_e16", "open_clip:ViT-B-32/laion2b_e16"),
    ],
)
def test_a_name_that_is_none_suggests_the_near_one(name: str, meant: str) -> None:
    with pytest.raises((ConfigError, BackboneError), match=re.escape(f"did you mean '{meant}'?")):
        load_backbone(name)


def test_a_name_like_no_other_suggests_nothing() -> None:
    for name in ("resnet", "yolo", "timm:xyz"):
        with pytest.raises((ConfigError, BackboneError)) as refusal:
            load_backbone(name)
        assert "did you mean" not in str(refusal.value)


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
    bad = Backbone(good.model, [replace(good.spec, grid=PatchGrid(5, 7))], good.device)

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

    from pipeline.backbones.hub import hub_file

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
