"""The hub's cache as the hub's own client lays it out: links into `blobs/`, read offline."""

import errno
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.backbones.digest import sha256_of_file
from pipeline.backbones.load import load_backbone
from spg_core.errors import BackboneError
from tests.hub_server import TOKEN, hub_of
from tests.random_weights import random_timm_weights

PRESETS = {
    "dinov3": ("vit_large_patch16_dinov3", "timm/vit_large_patch16_dinov3.lvd1689m", 48),
    "dinov2": ("vit_large_patch14_dinov2", "timm/vit_large_patch14_dinov2.lvd142m", 42),
    "siglip": ("vit_large_patch16_siglip_384", "timm/vit_large_patch16_siglip_384.webli", 48),
}
"""Name, timm's model, its repository, an input size."""


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the presets with two narrow blocks: the real architectures in a second."""
    import timm
    from open_clip import factory

    small = functools.partial(timm.create_model, embed_dim=32, depth=2, num_heads=2)
    monkeypatch.setattr(timm, "create_model", small)
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 56, "layers": 2, "width": 64, "patch_size": 14},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
    }
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-L-14-336-quickgelu", config)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the place of the hub's cache, empty; from here on the hub is not to be asked."""
    place = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return place


def fill(cache: Path, repository: str, file_name: str, weights: Path) -> Path:
    """Have the hub's client download a file into its cache, from a hub on this machine."""
    from huggingface_hub import hf_hub_download

    served = cache.parent / "served"
    (served / repository).mkdir(parents=True)
    (served / repository / file_name).write_bytes(weights.read_bytes())
    with hub_of(served) as address, pytest.MonkeyPatch.context() as online:
        online.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        place = hf_hub_download(repository, file_name, cache_dir=cache, endpoint=address)
    return Path(place)


@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("file_name", ["model.safetensors", "pytorch_model.bin"])
def test_a_timm_preset_is_read_from_the_hubs_cache_offline(
    tmp_path: Path, cache: Path, name: str, file_name: str
) -> None:
    model, repository, size = PRESETS[name]
    weights = random_timm_weights(tmp_path, model)
    if file_name.endswith(".bin"):
        torch.save(load_file(weights), tmp_path / file_name)
        weights = tmp_path / file_name
    cached = fill(cache, repository, file_name, weights)
    pixels = torch.randn(1, 3, size, size)

    from_hub = load_backbone(name, image_size=size)
    from_file = load_backbone(name, image_size=size, weights=weights)

    assert cached.is_symlink()
    assert cached.resolve().name == sha256_of_file(weights)  # a name without an ending
    assert from_hub.spec == from_file.spec
    assert torch.equal(from_hub(pixels).tokens, from_file(pixels).tokens)


@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize(
    "file_name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
)
def test_openclip_is_read_from_the_hubs_cache_offline(
    tmp_path: Path, cache: Path, file_name: str
) -> None:
    import open_clip

    state = open_clip.CLIP(**open_clip.get_model_config("ViT-L-14-336-quickgelu")).state_dict()
    weights = tmp_path / file_name
    if file_name.endswith(".bin"):
        torch.save(state, weights)
    else:
        save_file({key: value.contiguous() for key, value in state.items()}, weights)
    cached = fill(cache, "timm/vit_large_patch14_clip_336.openai", file_name, weights)
    pixels = torch.randn(1, 3, 70, 70)

    from_hub = load_backbone("openclip", image_size=70)
    from_file = load_backbone("openclip", image_size=70, weights=weights)

    assert cached.is_symlink()
    assert from_hub.spec == from_file.spec
    assert torch.equal(from_hub(pixels).tokens, from_file(pixels).tokens)


@pytest.mark.parametrize("name", ["weights.bin", "weights", "WEIGHTS.SAFETENSORS", "weights.pth"])
def test_safetensors_are_read_under_any_name(tmp_path: Path, name: str) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")
    renamed = weights.rename(tmp_path / name)
    pixels = torch.randn(1, 3, 64, 64)

    found = load_backbone("timm:test_vit", image_size=64, weights=renamed)(pixels)

    assert torch.isfinite(found.tokens).all()


def test_a_torch_file_is_read_under_any_name(tmp_path: Path) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")
    pixels = torch.randn(1, 3, 64, 64)
    expected = load_backbone("timm:test_vit", image_size=64, weights=weights)(pixels)
    misnamed = tmp_path / "misnamed.safetensors"
    torch.save(load_file(weights), misnamed)

    found = load_backbone("timm:test_vit", image_size=64, weights=misnamed)(pixels)

    assert torch.equal(found.tokens, expected.tokens)


# --- what the hub answers, in words ----------------------------------------------------------


def asked_from(address: str, cache: Path, names: list[str], **variables: str) -> list[str]:
    """Load backbones in a process of its own, whose variables name a hub; give what comes out."""
    code = (
        "import sys\n"
        "from pipeline.backbones.load import load_backbone\n"
        "from spg_core.errors import BackboneError\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        print(load_backbone(name).spec.weights_sha256)\n"
        "    except BackboneError as error:\n"
        "        print(error)\n"
    )
    named = {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(cache), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        env={**os.environ, **named},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_gated_an_unknown_and_an_empty_repository_are_told_apart_and_an_open_one_is_used(
    tmp_path: Path,
) -> None:
    served, cache = tmp_path / "served", tmp_path / "hub"
    (served / "timm" / "vit_large_patch14_dinov2.lvd142m").mkdir(parents=True)
    gated = frozenset({"timm/vit_large_patch16_dinov3.lvd1689m"})
    weights = random_timm_weights(tmp_path, "test_vit")
    (served / "timm" / "test_vit.r160_in1k").mkdir()
    weights.rename(served / "timm" / "test_vit.r160_in1k" / "model.safetensors")
    names = ["dinov3", "siglip", "dinov2", "timm:test_vit.r160_in1k"]

    with hub_of(served, gated) as address:
        locked, unknown, empty, digest = asked_from(address, cache, names)
    offline = asked_from(address, cache, names, HF_HUB_OFFLINE="1")

    assert f"is gated: accept its licence at {address}/timm/vit_large_patch16_dinov3" in locked
    assert f"{address} has no open repository timm/vit_large_patch16_siglip_384" in unknown
    assert "holds none of model.safetensors, pytorch_model.bin" in empty
    assert digest == offline[3]
    assert len(digest) == 64
    assert all("HF_HUB_OFFLINE forbids to ask the hub" in message for message in offline[:3])


def test_a_login_opens_a_gated_repository(tmp_path: Path) -> None:
    served = tmp_path / "served" / "timm" / "test_vit.r160_in1k"
    served.mkdir(parents=True)
    random_timm_weights(tmp_path, "test_vit").rename(served / "model.safetensors")
    names = ["timm:test_vit.r160_in1k"]

    with hub_of(tmp_path / "served", frozenset({"timm/test_vit.r160_in1k"})) as address:
        (locked,) = asked_from(address, tmp_path / "hub", names)
        (digest,) = asked_from(address, tmp_path / "hub", names, HF_TOKEN=TOKEN)

    assert "is gated: accept its licence" in locked
    assert digest == sha256_of_file(served / "model.safetensors")


def test_a_full_disk_and_a_hub_that_goes_away_are_told_apart(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(error: Exception) -> None:
        def download(_repository: str, _file_name: str) -> None:
            raise error

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda _url: None)
    fail(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(BackboneError, match=r"cache .*hub cannot be written \(No space left"):
        load_backbone("siglip")
    fail(LocalEntryNotFoundError("the connection broke"))
    with pytest.raises(BackboneError, match=r"nor reachable at .*\(the connection broke\)"):
        load_backbone("siglip")


def test_only_dinov3_is_said_to_have_a_gate_and_timms_copy_to_have_none(cache: Path) -> None:
    with pytest.raises(BackboneError, match=r"HF_HUB_OFFLINE forbids.*timm's copy .* no login"):
        load_backbone("dinov3")
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE forbids") as refusal:
        load_backbone("siglip")
    assert "login" not in str(refusal.value)


def test_a_hub_cache_with_a_torn_reference_is_as_good_as_none(cache: Path) -> None:
    folder = cache / "models--timm--vit_large_patch16_siglip_384.webli"
    (folder / "refs").mkdir(parents=True)
    (folder / "snapshots").mkdir()
    (folder / "refs" / "main").write_bytes(b"\xff\xfe")

    with pytest.raises(BackboneError, match=r"is not in the hub's cache .*HF_HUB_OFFLINE forbids"):
        load_backbone("siglip")


def test_a_hub_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    (message,) = asked_from("http://127.0.0.1:9", tmp_path, ["dinov3"])

    assert "neither cached nor reachable at http://127.0.0.1:9" in message


def cut(blob: Path) -> None:
    os.truncate(blob, blob.stat().st_size // 2)


def empty(blob: Path) -> None:
    os.truncate(blob, 0)


def flip(blob: Path) -> None:
    data = bytearray(blob.read_bytes())
    data[-100] ^= 1
    blob.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_a_blob_that_is_not_what_the_hub_has_is_refused_and_had_again(
    tmp_path: Path, cache: Path, damage: Callable[[Path], None]
) -> None:
    """As people report it: a download of the right size and of other bytes, kept for good."""
    name, repository = "timm:test_vit.r160_in1k", "timm/test_vit.r160_in1k"
    weights = random_timm_weights(tmp_path, "test_vit")
    blob = fill(cache, repository, "model.safetensors", weights).resolve()
    whole = blob.read_bytes()
    damage(blob)

    with pytest.raises(BackboneError, match=f"is damaged: .* delete {blob} and run again"):
        load_backbone(name)
    blob.unlink()
    with hub_of(cache.parent / "served") as address:
        (digest,) = asked_from(address, cache, [name])

    assert blob.read_bytes() == whole
    assert digest == blob.name


def test_a_snapshot_that_no_reference_names_is_told_from_none(tmp_path: Path, cache: Path) -> None:
    """As `revision=COMMIT` downloads it."""
    weights = random_timm_weights(tmp_path, "test_vit")
    cached = fill(cache, "timm/test_vit.r160_in1k", "model.safetensors", weights)
    shutil.rmtree(cached.parents[2] / "refs")

    with pytest.raises(BackboneError, match=f"no reference main, but {cached}: .*--weights"):
        load_backbone("timm:test_vit.r160_in1k")
    assert load_backbone("timm:test_vit.r160_in1k", weights=cached).spec.weights_sha256
