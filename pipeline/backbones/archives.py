"""Tensors of archives that torch opens only by running their code, without running it.

Such are TorchScript, as OpenAI's `ViT-L-14-336px.pt`, and checkpoints that hold, beside tensors,
objects of somebody's classes, as Lightning's hyperparameters. An archive holds a pickle
(`data.pkl`), the bytes of its tensors (`data/0`, ..), perhaps the source of its classes (`code/`).
`torch.jit.load` compiles the source, `torch.load` imports the classes. Here the pickle alone is
read, by an unpickler that knows tensors and plain containers and takes other classes for bags.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor

from spg_core.errors import BackboneError

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def check_archive(path: Path) -> None:
    """Refuse an archive whose tensors are not what was written; what torch itself never looks at.

    Raises:
        BackboneError: bytes do not match their CRC-32, or are compressed, as torch never stores
            them: a small file might be a huge one then.
    """
    problem = f"{path} is a damaged torch file"
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not re.search(r"/data(\.pkl$|/)", info.filename):
                    continue
                if info.compress_type != zipfile.ZIP_STORED:
                    raise BackboneError(f"{problem}: {info.filename} is compressed; save it again")
                with archive.open(info) as file:
                    while info.CRC and file.read(1 << 20):  # 0: written without
                        pass
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise BackboneError(f"{problem} ({error}); download it again") from error


def module_tensors(content: object, prefix: str = "") -> dict[str, Tensor]:
    """Give what the state dict of a saved module would be; empty for what is no module.

    Args:
        content: a bag of a class of `torch.nn`, or of one derived from it.
        prefix: put before each name.
    """
    held = content.held if isinstance(content, _Bag) else None
    if not isinstance(held, dict) or not isinstance(held.get("_modules"), dict):
        return {}
    left_out = held.get("_non_persistent_buffers_set") or ()
    own = {**held.get("_parameters", {}), **held.get("_buffers", {})}
    found = {
        f"{prefix}{name}": value
        for name, value in own.items()
        if isinstance(value, Tensor) and name not in left_out
    }
    for name, child in held["_modules"].items():
        found |= module_tensors(child, f"{prefix}{name}.")
    return found


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of an archived module by their dotted names.

    Raises:
        BackboneError: the archive is damaged, or holds something else than modules and tensors.
    """
    check_archive(path)
    try:
        return dict(_named(_unpickled(path, _Reader)))
    except _BROKEN as error:
        raise BackboneError(
            f"{path} is a TorchScript archive that cannot be read without running its code "
            f'({error}); convert it where you trust it: python -c "import torch; '
            f"torch.save(torch.jit.load('{path.name}', 'cpu').state_dict(), 'weights.pth')\""
        ) from error


def read_among_objects(path: Path) -> object:
    """Read a torch file that holds objects of classes that are not to be imported.

    Returns: what `torch.load` would, with a bag of no use for each such object; None where that
        cannot be read.
    """
    try:
        return _unpickled(path, _LooseReader)
    except _BROKEN:
        return None


_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, KeyError, ValueError, TypeError,
    RuntimeError, EOFError, AttributeError, IndexError, RecursionError,
)  # fmt: skip
"""What damaged archives, and those of another kind, end in."""


def _unpickled(path: Path, reader: "type[_Reader]") -> object:
    with zipfile.ZipFile(path) as archive:
        (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(listing) as file:
            return reader(file, archive, listing.removesuffix(".pkl")).load()


class _Bag:
    """An object of a foreign class: what it was given to hold, and no behaviour."""

    held: object = None

    def __new__(cls, *_: object, **__: object) -> "_Bag":
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def append(self, _value: object) -> None:
        """Take what a pickle puts into lists of a class of its own."""

    def extend(self, _values: object) -> None:
        """Take several of these."""

    def __setstate__(self, state: object) -> None:
        self.held = state


class _Reader(pickle.Unpickler):
    """Read `data.pkl`; a storage is looked up in the archive."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> object:
        """Give the few things that such a pickle may name; classes of the archive become bags."""
        if module == "__torch__" or module.startswith("__torch__."):
            return type("_Bag", (_Bag,), {})
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known: dict[tuple[str, str], Callable[..., object]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("builtins", "set"): set,
            ("__builtin__", "set"): set,
            ("torch._utils", "_rebuild_tensor_v2"): _view,
            ("torch._utils", "_rebuild_parameter"): _first,
            ("torch.jit._pickle", "restore_type_tag"): _first,
        }
        if module == "torch.jit._pickle" and name.startswith("build_") and name.endswith("list"):
            return _first
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: object) -> Tensor:
        """Give a storage as a flat tensor."""
        kind, dtype, key, _, n_values = cast("tuple[str, torch.dtype, str, str, int]", pid)
        info = self._archive.getinfo(f"{self._folder}/{key}")
        if kind != "storage" or info.compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError(f"it holds {info.filename} in a form of its own")
        if info.file_size != n_values * dtype.itemsize:
            raise pickle.UnpicklingError(f"{info.filename} is not {n_values} values of {dtype}")
        if not n_values:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self._archive.read(info)), dtype=dtype)


class _LooseReader(_Reader):
    """The same, but a class that is not known is a bag."""

    def find_class(self, module: str, name: str) -> object:
        """Give what the other reader gives, else a bag."""
        try:
            return super().find_class(module, name)
        except pickle.UnpicklingError:
            return type("_Bag", (_Bag,), {})


def _view(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _first(value: object, *_: object) -> object:
    return value


def _named(module: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if not isinstance(module, _Bag) or not isinstance(module.held, dict):
        return
    for name, value in module.held.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _named(value, f"{prefix}{name}.")
