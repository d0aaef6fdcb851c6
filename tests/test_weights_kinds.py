"""What a weights file is, its bytes say: read, or refused by what it is and what to do."""

import functools
import gzip
import io
import json
import os
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from pipeline.backbones.load import load_backbone
from pipeline.backbones.weights import read_state_dict
from spg_core.errors import BackboneError
from tests.random_weights import random_timm_weights

STATE = {"blocks.0.norm1.weight": torch.arange(3.0), "scale": torch.tensor(2, dtype=torch.int64)}

# --- read ------------------------------------------------------------------------------------

WRITERS: dict[str, Callable[[Path], None]] = {
    "safetensors": lambda path: save_file(STATE, path),
    "torch": lambda path: torch.save(STATE, path),
    "torch before 1.6": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
}
NAMES = ["model.safetensors", "model.pth", "pytorch_model.bin", "MODEL.SAFETENSORS", "x.npz", "x"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", WRITERS)
def test_each_kind_is_read_under_any_name(tmp_path: Path, kind: str, name: str) -> None:
    WRITERS[kind](tmp_path / name)

    found = read_state_dict(tmp_path / name)

    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


WRAPPED: dict[str, dict[str, Any]] = {
    "timm": {"state_dict": {"a": 0}, "state_dict_ema": STATE, "epoch": 3},
    "Lightning": {"state_dict": STATE, "optimizer_states": [{"state": {0: torch.ones(2)}}]},
    "DINO": {"student": {"a": torch.ones(1)}, "teacher": STATE, "epoch": 1},
    "data parallel": {"model": {f"module.{key}": value for key, value in STATE.items()}},
    "compiled": {"model": {f"_orig_mod.module.{key}": value for key, value in STATE.items()}},
    "compiled blocks": {key.replace("norm1", "_orig_mod.norm1"): STATE[key] for key in STATE},
    "twice": {"model": {"state_dict": STATE}},
}


@pytest.mark.parametrize("who", WRAPPED)
def test_a_checkpoint_is_unwrapped(tmp_path: Path, who: str) -> None:
    torch.save(WRAPPED[who], tmp_path / "checkpoint.pth")

    assert read_state_dict(tmp_path / "checkpoint.pth").keys() == STATE.keys()


class Hyperparameters(dict[str, Any]):
    """As Lightning keeps a model's options: a dictionary of a class of its own."""


@dataclass
class Loss:
    """Some object of the training code."""

    weight: float = 0.5


def test_tensors_among_objects_of_foreign_classes_are_read_without_importing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {key: torch.nn.Parameter(STATE[key].float()) for key in STATE}
    checkpoint = {
        "hyper_parameters": Hyperparameters(lr=0.1, loss=Loss(), root=tmp_path),
        "callbacks": {"stop": functools.partial(max, 3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "state_dict": parameters,
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")

    def never(*_: Any) -> None:
        raise AssertionError("a class of the file was made")

    monkeypatch.setattr(Hyperparameters, "__setitem__", never)
    monkeypatch.setattr(Loss, "__init__", never)
    found = read_state_dict(tmp_path / "last.ckpt")

    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key].float()) for key in STATE)


def test_a_checkpoint_that_would_run_something_does_not(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": STATE, "more": Evil()}, tmp_path / "evil.pth")

    found = read_state_dict(tmp_path / "evil.pth")

    assert found.keys() == STATE.keys()
    assert not (tmp_path / "ran").exists()


def scripted_clip(
    path: Path, *, width: int = 64, embed_dim: int = 24, size: int = 56
) -> dict[str, torch.Tensor]:
    """Write a small CLIP as OpenAI publishes theirs, a TorchScript archive in half precision."""
    import open_clip

    net = open_clip.CLIP(
        embed_dim=embed_dim,
        quick_gelu=True,
        vision_cfg={"image_size": size, "layers": 2, "width": width, "patch_size": 14},  # type: ignore[arg-type]
        text_cfg={"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},  # type: ignore[arg-type]
    ).half()
    net.register_buffer("input_resolution", torch.tensor(56))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net.eval()), str(path))
    state: dict[str, torch.Tensor] = net.state_dict()
    return state


def test_a_torchscript_archive_is_read_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scripted_clip(tmp_path / "ViT-L-14-336px.pt")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the archive's code was loaded")

    monkeypatch.setattr(torch.jit, "load", never)
    monkeypatch.setattr(torch._C, "import_ir_module", never)
    found = read_state_dict(tmp_path / "ViT-L-14-336px.pt")

    assert found.keys() == expected.keys() | {"attn_mask"}
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_torchscript_archive_that_names_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"cos\nsystem\n(S'touch /tmp/spg-evil'\ntR.")
        archive.writestr("m/constants.pkl", b"\x80\x02).")

    with pytest.raises(BackboneError, match=r"cannot be read without running .*os\.system.*trust"):
        read_state_dict(path)


# --- refused, by name ------------------------------------------------------------------------


def saved(write: Callable[[Any], None]) -> bytes:
    memory = io.BytesIO()
    write(memory)
    return memory.getvalue()


def zipped(names: dict[str, bytes]) -> bytes:
    def write(memory: Any) -> None:
        with zipfile.ZipFile(memory, "w") as archive:
            for name, data in names.items():
                archive.writestr(name, data)

    return saved(write)


def tarred() -> bytes:
    def write(memory: Any) -> None:
        with tarfile.open(fileobj=memory, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            archive.addfile(tarfile.TarInfo("weights.bin"), io.BytesIO())

    return saved(write)


TORCH = saved(lambda file: torch.save({"a": torch.ones(1000)}, file))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1217524280\n"
INDEX = json.dumps({"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}})
GATED = b"Access to model facebook/dinov3 is restricted. You must be authenticated to access it."
KERNEL = np.ones((2, 2), np.float32)
JAX: dict[str, Any] = {"params/img/embedding/kernel": KERNEL}

REFUSED: dict[str, tuple[bytes, str]] = {
    "git-lfs pointer": (POINTER, r"git-lfs pointer.*git lfs pull"),
    "web page": (b"<!DOCTYPE html>\n<html><body>model.safetensors", r"web page.*the file itself"),
    "refusal of the hub": (GATED, r"text that begins 'Access to model .*download the weights"),
    "index cut short": (INDEX.encode()[:-9], r"damaged index of weights.*download it again"),
    "index of nothing": (b'{"weight_map": {}}', r"index of weights that names none"),
    "index of another folder": (
        b'{"weight_map": {"a": "../model.safetensors"}}',
        r"'a' into '../model.safetensors', which is no file of its folder",
    ),
    "config": (b'{"architectures": ["Dinov2Model"]}', r"JSON, not weights.*holds the tensors"),
    "big_vision": (
        saved(lambda file: np.savez(file, **JAX)),
        r"big_vision's \(JAX\) SigLIP.*timm/vit_large_patch16_siglip_384",
    ),
    "npz": (saved(lambda file: np.savez(file, a=KERNEL)), r"a NumPy archive.*save its weights"),
    "npy": (saved(lambda file: np.save(file, KERNEL)), r"a single NumPy array"),
    "gzip": (gzip.compress(TORCH), r"a gzip archive.*unpack it first"),
    "tar": (tarred(), r"a tar archive.*unpack it first"),
    "zip": (zipped({"model.safetensors": b"x"}), r"a zip archive.*unpack it first"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), r"an HDF5 file.*save its weights"),
    "gguf": (b"GGUF\x03" + bytes(100), r"GGUF.*unquantised"),
    "torch cut short": (TORCH[:-100], r"cut short.*download it again"),
    "safetensors cut short": (
        save(STATE)[:-3],
        r"header describes \d+ bytes, it has \d+; download it again",
    ),
    "safetensors of brackets": (
        (100_000).to_bytes(8, "little") + b'{"a":' * 20_000,
        r"its header cannot be read\); download it again",
    ),
    "broken off": (bytes(5000), r"nothing but zeros.*download it again"),
    "pickle": (b"\x80\x04\x95\x05\x00\x00\x00\x00", r"a Python pickle, .*trust it: python -c"),
    "noise": (b"\xf1\xf2\xf3" * 99, r"no known kind \(it begins f1 f2 f3"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_named_with_what_to_do(tmp_path: Path, kind: str) -> None:
    data, expected = REFUSED[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)

    with pytest.raises(BackboneError, match=expected) as refusal:
        load_backbone("timm:test_vit", weights=path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    random_timm_weights(tmp_path / "folder", "test_vit")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    for weights, expected in (
        (tmp_path / "pipe", "pipe is a pipe, socket or device"),
        (Path("/dev/zero"), "zero is a pipe, socket or device"),
        (tmp_path / "folder", r"is a folder.* as .*folder/test_vit\.safetensors"),
        (tmp_path / "loop", "no weights file at .*loop"),
        (Path("https://hf.co/timm/x/model.safetensors"), "is an address.*download it"),
    ):
        with pytest.raises(BackboneError, match=expected):
            load_backbone("timm:test_vit", weights=weights)


@pytest.mark.parametrize("start", [b"", b"\x10" + bytes(7) + b'{"a":{}}        '])
def test_a_huge_file_of_holes_is_refused_without_being_read(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "sparse.safetensors"
    path.write_bytes(start)
    os.truncate(path, 1 << 40)

    with pytest.raises(BackboneError, match=r"sparse\.safetensors"):
        load_backbone("timm:test_vit", weights=path)


# --- the digest ------------------------------------------------------------------------------


def test_the_digest_is_computed_once_and_again_after_any_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    from pipeline.backbones.digest import sha256_of_file

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "memo"))
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    times = path.stat()
    first = sha256_of_file(path)
    with monkeypatch.context() as unread:
        unread.setattr(hashlib, "file_digest", None)
        again = sha256_of_file(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert first == again == hashlib.sha256(b"one").hexdigest()
    assert sha256_of_file(path) == hashlib.sha256(b"two").hexdigest()


def test_weights_that_change_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.backbones import timm_weights

    weights = random_timm_weights(tmp_path, "test_vit")
    other = {key: value + 1 for key, value in load_file(weights).items()}

    def read_and_replace(path: Path) -> dict[str, torch.Tensor]:
        state = read_state_dict(path)
        save_file(other, path)
        return state

    monkeypatch.setattr(timm_weights, "read_state_dict", read_and_replace)

    with pytest.raises(BackboneError, match="changes while it is read"):
        load_backbone("timm:test_vit", weights=weights)
