"""Whether the tensors of an artifact are those that its document speaks of."""

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from pipeline.artifacts.documents import (
    CombinationDocument,
    Document,
    GuidesDocument,
    MemoryDocument,
    SaeDocument,
)
from spg_core.errors import CorruptStore

if TYPE_CHECKING:
    from torch import Tensor

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
_VALUE_BYTES = {"float32": 4, "float16": 2, "int32": 4, "bool": 1}
_BY = {
    "saes": "config.width and backbone.covers.d_model",
    "guides": "dictionary.atoms and backbone.covers.d_model",
    "memories": "categories.NAME.tokens and backbone.covers.d_model",
    "combinations": "parts",
}
"""The fields that the shapes follow from."""


def check_tensors(document: Document, tensors: Mapping[str, "Tensor"], where: str) -> None:
    """Refuse tensors of other names, types, shapes or values than the document asks for.

    Raises: CorruptStore naming file and tensor.
    """
    layout = _layout(document)
    if layout:
        _check_layout(layout, tensors, where, document.kind)
        _check_finite(tensors, where)
    match document:
        case GuidesDocument():
            _check_guides(document, tensors, where)
        case MemoryDocument():
            _check_origins(document, tensors["origins"], where)
        case CombinationDocument():
            _check_weights(document, tensors["weights"], where)


def tensor_bytes(document: Document) -> int:
    """Give how many bytes the tensors have that a document asks for."""
    return sum(_VALUE_BYTES[dtype] * prod(shape) for dtype, shape in _layout(document).values())


def _layout(document: Document) -> Layout:
    match document:
        case SaeDocument():
            matrix = ("float32", (document.config.width, document.backbone.spec.d_model))
            flags = ("bool", (document.config.width,))
            return {"encoder": matrix, "dictionary": matrix, "ever_active": flags}
        case GuidesDocument():
            vectors = ("float32", (2, document.backbone.spec.d_model))
            coefficients = ("float32", (2, document.dictionary.atoms))
            return {f"guides_{kind}": vectors for kind in ("ema", "raw")} | {
                f"coefficients_{kind}": coefficients for kind in ("ema", "raw")
            }
        case MemoryDocument():
            n_tokens = sum(one.tokens for one in document.categories.values())
            tokens = ("float16", (n_tokens, document.backbone.spec.d_model))
            return {"tokens": tokens, "origins": ("int32", (n_tokens, 2))}
        case CombinationDocument():
            return {"weights": ("float32", (len(document.parts),))}
    return {}


def _check_layout(layout: Layout, tensors: Mapping[str, "Tensor"], where: str, kind: str) -> None:
    for name in sorted(layout.keys() | tensors.keys()):
        if name not in tensors:
            raise CorruptStore(f"{where} lacks the tensor {name}")
        if name not in layout:
            raise CorruptStore(f"{where} holds a tensor {name!r:.60}, which nothing asks for")
        found = (str(tensors[name].dtype).removeprefix("torch."), tuple(tensors[name].shape))
        if found != layout[name]:
            raise CorruptStore(
                f"{where}: {name} is {_show(found)}, its JSON asks for {_show(layout[name])} by "
                f"{_BY[kind]}"
            )


def _show(layout: tuple[str, tuple[int, ...]]) -> str:
    return f"{layout[0]} {layout[1]}"


def _check_finite(tensors: Mapping[str, "Tensor"], where: str) -> None:
    for name, tensor in sorted(tensors.items()):
        if not bool(tensor.isfinite().all()):
            raise CorruptStore(f"{where}: {name} holds values that are not finite")


def _check_guides(document: GuidesDocument, tensors: Mapping[str, "Tensor"], where: str) -> None:
    free = document.dictionary.kind == "none"
    for name, tensor in sorted(tensors.items()):
        for row, guide in enumerate(("normal", "anomalous")):
            if not bool(tensor[row].any()):
                raise CorruptStore(f"{where}: {name} is 0 everywhere for the {guide} guide")
        if name.startswith("coefficients") and not free and bool((tensor < 0).any()):
            raise CorruptStore(f"{where}: {name} holds coefficients below 0")


def _check_origins(document: MemoryDocument, origins: "Tensor", where: str) -> None:
    """Refuse tokens that come from elsewhere than their category's images, or twice from there."""
    n_patches = document.backbone.spec.grid.tokens_per_image
    for name, span in document.spans:
        rows, known = set(origins[span, 0].tolist()), set(document.categories[name].rows)
        if not rows <= known:
            raise CorruptStore(
                f"{where}: origins names image row {min(rows - known)}, which is not in "
                f"categories.{name}.rows"
            )
        patches = origins[span, 1]
        if int(patches.min()) < 0 or int(patches.max()) >= n_patches:
            raise CorruptStore(
                f"{where}: origins names patches {int(patches.min())} to {int(patches.max())}; "
                f"backbone.covers.grid has {n_patches}"
            )
        if len(set(map(tuple, origins[span].tolist()))) < len(patches):
            raise CorruptStore(f"{where}: origins names a token of categories.{name} twice")


def _check_weights(document: CombinationDocument, weights: "Tensor", where: str) -> None:
    told = [one.weight for one in document.parts]
    if any(abs(a - b) > 1e-6 for a, b in zip(told, weights.tolist(), strict=True)):
        raise CorruptStore(f"{where}: weights are {weights.tolist()}, its JSON says {told}")
