"""Weights in several files: an index says in which of them each tensor lies.

As transformers writes them: `model.safetensors.index.json` beside `model-00001-of-00002..` and so
on. The index is what `--weights` takes; its parts lie in its folder, links or not.
"""

import json
from pathlib import Path

from spg_core.errors import BackboneError

_LONGEST_INDEX = 64 << 20  # bytes; 3 MB for 20,000 tensors


def is_index(path: Path, start: bytes) -> bool:
    """Tell whether a file that begins with `start` is such an index."""
    return start.lstrip().startswith(b"{") and "weight_map" in _json_of(path)


def parts_of(path: Path) -> dict[Path, set[str]]:
    """Give the files that an index names, each with the names of the tensors in it.

    Raises:
        BackboneError: it says so of no tensor, or names what is not a file of its own folder.
    """
    parts: dict[Path, set[str]] = {}
    named = _json_of(path).get("weight_map")
    for tensor, file in named.items() if isinstance(named, dict) else ():
        if not isinstance(file, str) or Path(file).name != file or file == "..":
            raise BackboneError(
                f"{path} puts {tensor!r:.60} into {file!r:.60}, which is no file of its folder"
            )
        parts.setdefault(path.with_name(file), set()).add(tensor)
    if not parts:
        raise BackboneError(f"{path} is an index of weights that names none; download it again")
    return dict(sorted(parts.items()))


def files_of(path: Path) -> list[Path]:
    """Give the files that weights are in: the file itself, or an index and its parts."""
    if not path.is_file():  # a pipe would make whoever opens it wait
        return [path]
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return [path]
    return [path, *parts_of(path)] if is_index(path, start) else [path]


def index_of(part: Path) -> Path | None:
    """Give the index beside a file that names it as one of several, None where there is none."""
    for index in sorted(part.parent.glob("*.index.json")):
        named = _json_of(index).get("weight_map")
        files = set(named.values()) if isinstance(named, dict) else set()
        if part.name in files and len(files) > 1:
            return index
    return None


def _json_of(path: Path) -> dict[str, object]:
    """Read a JSON object; empty for what is none."""
    try:
        if path.stat().st_size > _LONGEST_INDEX:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
