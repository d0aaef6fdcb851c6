"""What a weights file is, told by its bytes: one of the kinds that are read, or refused by name."""

import json
import stat
import struct
import zipfile
from pathlib import Path
from typing import Literal

from pipeline.backbones.in_parts import is_index
from spg_core.errors import BackboneError

Kind = Literal["safetensors", "torch", "torchscript", "index"]

_TAKES = "--weights takes a safetensors or torch file"
_LONGEST_HEADER = 100_000_000  # bytes, the safetensors library's own limit
_UNPACK = "unpack it first"
_SAVE_TORCH = "save its weights with torch or safetensors first"

_BEGINS: dict[bytes, tuple[str, str]] = {
    b"version https://git-lfs": (
        "a git-lfs pointer, a few lines that stand for the file",
        "run `git lfs pull` in that repository, or download the file itself",
    ),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file, as Keras writes it", _SAVE_TORCH),
    b"GGUF": ("a GGUF file of quantised weights", "give the unquantised weights"),
    b"\x93NUMPY": ("a single NumPy array", _SAVE_TORCH),
    b"\x1f\x8b": ("a gzip archive", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("a zstd archive", _UNPACK),
    b"\xfd7zXZ": ("an xz archive", _UNPACK),
    b"BZh": ("a bzip2 archive", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"Rar!": ("a rar archive", _UNPACK),
    **{
        bytes([8, version, 0x12]): ("an ONNX graph", "give the weights it was exported from")
        for version in range(3, 20)
    },
    b"\x89PNG": ("an image", "give the weights file"),
    b"\xff\xd8\xff": ("an image", "give the weights file"),
}
"""How files begin that are not read: what they are, and what to do."""

_TORCH_1_5 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number that torch wrote first before version 1.6."""

_BIG_VISION = (
    "a NumPy archive of big_vision's (JAX) SigLIP",
    "take timm's conversion, the file model.safetensors of timm/vit_large_patch16_siglip_384.webli "
    "on the hub",
)


def kind_of(path: Path) -> Kind:
    """Tell what a weights file is; a pipe or a device is never opened, a huge file never read.

    Raises:
        BackboneError: it is no regular file, or none of the kinds that are read.
    """
    check_weights_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise BackboneError(f"{path} cannot be read ({error.strerror}); see its rights") from error
    if is_index(path, start):
        return "index"
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _LONGEST_HEADER:
        _check_safetensors(path)
        return "safetensors"
    if start.startswith(_TORCH_1_5):
        return "torch"
    if start.startswith(b"\x80") and start[1] < 6:
        raise BackboneError(_a_pickle(path))
    found = next((said for begin, said in _BEGINS.items() if start.startswith(begin)), None)
    what, remedy = found or _unknown(path, start)
    raise BackboneError(f"{path} cannot be read as weights, it is {what}; {_TAKES}: {remedy}")


def check_weights_file(path: Path) -> None:
    """Refuse a path that is not a regular file; nothing is opened, so nothing can wait.

    Raises:
        BackboneError: there is no such file, or it is a folder, a pipe, a device, or empty.
    """
    try:
        status = path.stat()
    except OSError as error:
        scheme = str(path).partition(":/")[0]
        if scheme in ("http", "https", "s3", "gs", "hf", "ftp"):
            raise BackboneError(
                f"{path} is an address; {_TAKES}: download it and give the file"
            ) from None
        why = "" if isinstance(error, FileNotFoundError) else f" ({error.strerror})"
        raise BackboneError(f"no weights file at {path}{why}; {_TAKES}") from None
    if stat.S_ISDIR(status.st_mode):
        kinds = ("*.index.json", "*.safetensors", "*.bin")
        if next(path.glob("*.distcp"), None) is not None:
            raise BackboneError(
                f"{path} is a folder of torch's distributed checkpoints; {_TAKES}: python -m "
                f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pth"
            )
        inside = [file for kind in kinds for file in sorted(path.glob(kind))]
        example = f", as {inside[0]}" if inside else ""
        raise BackboneError(f"{path} is a folder; {_TAKES}: name the file in it{example}")
    if not stat.S_ISREG(status.st_mode):
        raise BackboneError(f"{path} is a pipe, socket or device; {_TAKES}")
    if status.st_size == 0:
        raise BackboneError(f"the weights file {path} is empty; download it again")


def _a_pickle(path: Path) -> str:
    return (
        f"{path} cannot be read as weights, it is a Python pickle, which may run anything when it "
        f'is opened; {_TAKES}. Where you trust it: python -c "import pathlib, pickle, torch; '
        f"m = pickle.loads(pathlib.Path('{path.name}').read_bytes()); "
        "torch.save({k: torch.as_tensor(v) for k, v in m.items()}, 'weights.pth')\""
    )


def _check_safetensors(path: Path) -> None:
    """Compare a safetensors file's size with what its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (n_header,) = struct.unpack("<Q", file.read(8))
        try:
            header = json.loads(file.read(min(n_header, size)))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            ends = [int(entry["data_offsets"][1]) for entry in tensors]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BackboneError(
                f"{path} is a damaged safetensors file (its header cannot be read); download it "
                "again"
            ) from error
    expected = 8 + n_header + max(ends, default=0)
    if size != expected:
        raise BackboneError(
            f"{path} is a damaged safetensors file: its header describes {expected} bytes, it has "
            f"{size}; download it again"
        )


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise BackboneError(
            f"{path} cannot be read as weights, it is a torch file that was cut short (its end is "
            "missing); download it again"
        ) from error
    if any(name.endswith("/data.pkl") for name in names):
        is_script = any(name.endswith("/constants.pkl") for name in names)
        return "torchscript" if is_script else "torch"
    if any(name.endswith("archive_format") for name in names):
        what, remedy = "a program of torch.export", "give the weights it was exported from"
    elif any(name.endswith(".npy") for name in names):
        of_jax = any(name.startswith("params/") for name in names)
        what, remedy = _BIG_VISION if of_jax else ("a NumPy archive", _SAVE_TORCH)
    else:
        what, remedy = "a zip archive", _UNPACK
    raise BackboneError(f"{path} cannot be read as weights, it is {what}; {_TAKES}: {remedy}")


def _unknown(path: Path, start: bytes) -> tuple[str, str]:
    """Describe a file by what stands at its start: a page, JSON, another text, zeros, bytes."""
    text = start.decode("utf-8", errors="ignore").strip()
    if not start.strip(b"\0"):
        return "nothing but zeros at its start", "its download broke off; download it again"
    if start[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if text.lower().startswith(("<!doctype html", "<html")):
        return "a web page saved as a file", "download the file itself, not the page about it"
    if text.startswith(("{", "[")):
        if b'"weight_map"' in start:
            return "a damaged index of weights in several files", "download it again"
        return "JSON, not weights", "give the file that holds the tensors"
    if len(text) > 16 and text.isprintable():
        return f"a text that begins {text[:60]!r}", "download the weights themselves"
    return f"of no known kind (it begins {start[:8].hex(' ')})", "give the weights file"
