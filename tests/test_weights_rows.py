"""Every row of docs/formats.md on weights, made as its program makes it: read, or refused so."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.plain_vits import PLAIN
from pipeline.backbones.load import load_backbone
from spg_core.errors import BackboneError
from tests.narrow_presets import DEPTH, N_HEADS, WIDTH, shrunk  # noqa: F401
from tests.test_weights_kinds import REFUSED as BYTES
from tests.test_weights_kinds import Hyperparameters, Loss, scripted_clip
from tests.weight_rows import READ, REFUSED, WEIGHTS, WeightRow

pytestmark = pytest.mark.usefixtures("shrunk")


def state_of(name: str) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return PLAIN[name].weights(PLAIN[name], WIDTH, DEPTH, N_HEADS)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def torch_file(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def hub_cache(folder: Path) -> Path:
    from tests.test_hub_cache import fill

    save_file(state_of("dinov2"), folder / "served.safetensors")
    cached = fill(folder / "hub", "a/b", "model.safetensors", folder / "served.safetensors")
    assert cached.is_symlink()
    return cached


def misnamed(folder: Path) -> Path:
    save_file(state_of("siglip"), folder / "weights.bin")
    return folder / "weights.bin"


def by_transformers(folder: Path, kind: str) -> Path:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tests import test_transformers_weights as saved

    saved.randomised(saved.MODELS[kind][0]()[0]).save_pretrained(folder)
    return folder / "model.safetensors"


def openai(folder: Path) -> Path:
    scripted_clip(folder / "ViT-L-14-336px.pt", width=WIDTH, embed_dim=WIDTH * 3 // 4, size=336)
    return folder / "ViT-L-14-336px.pt"


def among_objects(folder: Path) -> Path:
    options = Hyperparameters(lr=0.1, loss=Loss())
    content = {"state_dict": state_of("dinov2"), "hyper_parameters": options}
    return torch_file(folder / "last.ckpt", content)


def dino(folder: Path) -> Path:
    state = state_of("dinov2")
    student = prefixed({key: value + 1 for key, value in state.items()}, "student.backbone.")
    both = student | prefixed(state, "teacher.backbone.")
    return torch_file(folder / "checkpoint.pth", both)


def adapted(folder: Path) -> Path:
    lora = {f"blocks.{block}.attn.qkv.lora_A": torch.ones(2, 2) for block in range(2)}
    return torch_file(folder / "lora.pth", state_of("dinov2") | lora)


def in_parts(folder: Path) -> Path:
    save_torch_state_dict(state_of("dinov2"), folder, max_shard_size="50KB")
    return folder / "model.safetensors.index.json"


def one_part(folder: Path) -> Path:
    return min(in_parts(folder).parent.glob("model-00001-of-*.safetensors"))


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def in_folder(folder: Path) -> Path:
    save_file(state_of("siglip"), folder / "model.safetensors")
    return folder


MADE: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "the hub's cache": ("dinov2", hub_cache),
    "timm": (
        "siglip",
        lambda folder: torch_file(
            folder / "last.pth", {"state_dict": prefixed(state_of("siglip"), "module.")}
        ),
    ),
    "a file under another name": ("siglip", misnamed),
    "Meta's DINOv2": ("dinov2", lambda folder: torch_file(folder / "x.pth", state_of("dinov2"))),
    "Meta's DINOv3": ("dinov3", lambda folder: torch_file(folder / "x.pth", state_of("dinov3"))),
    "transformers' DINOv2": ("dinov2", lambda folder: by_transformers(folder, "DINOv2")),
    "transformers' DINOv3": ("dinov3", lambda folder: by_transformers(folder, "DINOv3")),
    "transformers' SigLIP": ("siglip", lambda folder: by_transformers(folder, "SigLIP")),
    "transformers' CLIP": ("openclip", lambda folder: by_transformers(folder, "CLIP")),
    "open_clip": ("openclip", lambda folder: torch_file(folder / "x.pt", state_of("openclip"))),
    "OpenAI's ViT-L-14-336px.pt": ("openclip", openai),
    "Lightning": (
        "dinov2",
        lambda folder: torch_file(
            folder / "epoch=3.ckpt",
            {"state_dict": prefixed(state_of("dinov2"), "model.backbone."), "epoch": 3},
        ),
    ),
    "objects among tensors": ("dinov2", among_objects),
    "DINO training": ("dinov2", dino),
    "half precision": (
        "siglip",
        lambda folder: torch_file(
            folder / "half.pth", {key: value.half() for key, value in state_of("siglip").items()}
        ),
    ),
    "several files": ("dinov2", in_parts),
    "part of weights in several files": ("dinov2", one_part),
    "two models in one file": (
        "dinov2",
        lambda folder: torch_file(
            folder / "two.pth",
            prefixed(state_of("dinov2"), "left.") | prefixed(state_of("dinov2"), "right."),
        ),
    ),
    "adapters (LoRA)": ("dinov2", adapted),
    "another model's weights": (
        "dinov2", lambda folder: torch_file(folder / "x.pth", state_of("siglip"))
    ),
    "a folder": ("siglip", in_folder),
    "an address": ("siglip", lambda folder: Path("https://hf.co/timm/x/model.safetensors")),
    "a pipe or device": ("siglip", pipe),
}  # fmt: skip
"""Which preset reads it, and how it is made; what is not here is bytes in test_weights_kinds."""


@pytest.mark.parametrize("row", WEIGHTS, ids=lambda row: row.what)
def test_a_row_of_the_page_is_true(tmp_path: Path, row: WeightRow) -> None:
    if row.what in MADE:
        name, make = MADE[row.what]
        weights = make(tmp_path)
    else:
        name = "dinov2" if row.what != "big_vision's SigLIP" else "siglip"
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(BYTES[row.what.replace("'s SigLIP", "")][0])
    size = 6 * PLAIN[name].patch

    if row.result == READ:
        found = load_backbone(name, image_size=size, weights=weights)
        assert torch.isfinite(found(torch.randn(1, 3, size, size)).tokens).all()
    else:
        with pytest.raises(BackboneError) as refusal:
            load_backbone(name, image_size=size, weights=weights)
        assert row.result.removeprefix(REFUSED) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_the_teacher_is_read_and_not_the_student(tmp_path: Path) -> None:
    plain = torch_file(tmp_path / "plain.pth", state_of("dinov2"))
    pixels = torch.randn(1, 3, 84, 84)

    found = load_backbone("dinov2", image_size=84, weights=dino(tmp_path))(pixels).tokens

    expected = load_backbone("dinov2", image_size=84, weights=plain)(pixels).tokens
    assert torch.equal(found, expected)
