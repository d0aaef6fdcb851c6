"""Small artifacts of every kind that belong to no cache: whole, in range, made without a fit."""

import hashlib
import json
from typing import Any

import pyarrow as pa
import torch

from pipeline.artifacts.bodies import carried_document, decode_tensors, encode_tensors
from pipeline.artifacts.combination import (
    CombinationDocument,
    CombinationParents,
    CombinedPart,
    PartKind,
    StoredScale,
)
from pipeline.artifacts.documents import (
    DOCUMENTS,
    GuidesDocument,
    ReproducedDocument,
    SaeDocument,
    SaeParents,
    SaeQuality,
    SaeTraining,
    ScoresDocument,
    ScoresParents,
    SweepDocument,
    SweepParents,
)
from pipeline.artifacts.guides import Counts, Dictionary, GuidesParents, GuidesTraining, Sparsity
from pipeline.artifacts.memory import CategoryMemory, MemoryDocument, MemoryParents
from pipeline.artifacts.notes import (
    CalibratedOn,
    Chosen,
    LatestDocument,
    Measured,
    Scoring,
    ThresholdDocument,
    ThresholdRequest,
)
from pipeline.artifacts.resolve import Place
from pipeline.artifacts.terms import Backbone, CacheParent, Metrics, Row
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import (
    CombineConfig,
    FigureConfig,
    FitGuidesConfig,
    FitMemoryConfig,
    FitSaeConfig,
    ReproduceConfig,
    ScoreConfig,
    SweepConfig,
)
from pipeline.kinds import BODY, JSON, folder
from spg_core.types import PatchGrid

CACHE = CacheParent(dataset="nuts", backbone="tiny", key="0123456789abcdef")
ATOMS = 4
_KINDS = ("ema", "raw")


def tiny_spec(**changes) -> BackboneSpec:
    """A backbone of 3 values a token on 2 x 3 patches."""
    fields = {
        "name": "tiny",
        "library": "spg_core",
        "model": "tiny",
        "weights_sha256": hashlib.sha256(b"tiny").hexdigest(),
        "layer": None,
        "final_norm": False,
        "projection": False,
        "height": 16,
        "width": 24,
        "grid": PatchGrid(2, 3),
        "d_model": 3,
        "has_cls": False,
        "resize_filter": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "compute_dtype": "float32",
        "exif": False,
    }
    return BackboneSpec(**{**fields, **changes})


def sae_document(identifier: str = "nuts-tiny-c4-k2-00000001", spec=None) -> SaeDocument:
    """What an SAE of 4 atoms says of itself."""
    return SaeDocument(
        id=identifier,
        config=FitSaeConfig(width=ATOMS, k=2),
        parents=SaeParents(cache=CACHE),
        backbone=_backbone(spec),
        quality=SaeQuality(fvu=0.25, l0=1.5, dead_atoms=1),
        training=SaeTraining(path="dense", steps=10, device="cpu", threads=1),
    )


def sae_tensors(seed: int = 0, d_model: int = 3) -> dict[str, torch.Tensor]:
    """Weights of an SAE of 4 atoms."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(ATOMS, d_model, generator=generator)
    return {
        "encoder": matrix,
        "dictionary": matrix / 2,
        "ever_active": torch.tensor([True, True, True, False]),
    }


def guides_document(identifier: str = "nuts-tiny-c4-k2-00000002", spec=None) -> GuidesDocument:
    """What guides over 4 atoms say of themselves."""
    counts = Counts(nnz=(2.0, 4.0), l1=(0.5, 0.75))
    return GuidesDocument(
        id=identifier,
        config=FitGuidesConfig(),
        parents=GuidesParents(cache=CACHE, sae="nuts-tiny-c4-k2-00000001"),
        backbone=_backbone(spec),
        dictionary=Dictionary(kind="sae", atoms=ATOMS),
        sparsity=Sparsity(raw=counts, ema=counts),
        training=GuidesTraining(steps=10, ema_start_share=0.5),
    )


def guides_tensors(seed: int = 0, d_model: int = 3) -> dict[str, torch.Tensor]:
    """Guides over 4 atoms."""
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, d_model, generator=generator)
    return {
        **{f"guides_{kind}": pair.clone() for kind in _KINDS},
        **{
            f"coefficients_{kind}": torch.rand(2, ATOMS, generator=generator)
            for kind in ("ema", "raw")
        },
    }


def memory_document(identifier: str = "nuts-tiny-1-shot-00000006") -> MemoryDocument:
    """What a memory of two categories, of one image and two tokens each, says of itself."""
    kept = [
        CategoryMemory(images=[hashlib.sha256(bytes([row])).hexdigest()], rows=[row], tokens=2)
        for row in (5, 7)
    ]
    return MemoryDocument(
        id=identifier,
        config=FitMemoryConfig(shots=1, coreset=0.35),
        parents=MemoryParents(cache=CACHE),
        backbone=_backbone(None),
        categories=dict(zip(("hex", "wing"), kept, strict=True)),
    )


def memory_tensors() -> dict[str, torch.Tensor]:
    """Two tokens of each category, and where they are from."""
    return {
        "tokens": torch.arange(1, 13).view(4, 3).half(),
        "origins": torch.tensor([[5, 0], [5, 4], [7, 1], [7, 3]], dtype=torch.int32),
    }


def combination_document(identifier: str = "nuts-tiny-mean-of-2-00000007") -> CombinationDocument:
    """What a mean of guides and a memory says of itself."""
    parts: dict[PartKind, str] = {
        "guides": "nuts-tiny-c4-k2-00000009",
        "memories": memory_document().id,
    }
    return CombinationDocument(
        id=identifier,
        config=CombineConfig(),
        parents=CombinationParents(
            cache=CACHE, guides=[parts["guides"]], memories=[parts["memories"]]
        ),
        fitted_on=CACHE,
        recipe="released",
        backbone=_backbone(None),
        parts=[
            CombinedPart(kind=kind, id=one, weight=0.5, scale=StoredScale(slope=2.0, shift=-1.0))
            for kind, one in parts.items()
        ],
    )


def combination_tensors() -> dict[str, torch.Tensor]:
    """Weights of two parts."""
    return {"weights": torch.tensor([0.5, 0.5])}


def scores_document(identifier: str = "bolts-from-nuts-00000003") -> ScoresDocument:
    """What scores of two categories say of themselves; one has no pixel metrics."""
    numbers: dict[str, Any] = dict.fromkeys(("image_auroc", "image_ap", "image_f1max"), 0.75)
    names = ("pixel_auroc", "pixel_ap", "pixel_aupro", "pixel_f1max")
    pixels: dict[str, Any] = dict.fromkeys(names, 0.5)
    none: dict[str, Any] = {**dict.fromkeys(names), "pixel_reason": "no mask"}
    return ScoresDocument(
        id=identifier,
        config=ScoreConfig(tau=float("inf")),
        parents=ScoresParents(cache=CACHE, guides="nuts-tiny-c4-k2-00000002"),
        fitted_on=CACHE,
        recipe="released",
        backbone=_backbone(None),
        aupro="exact",
        mean=Metrics(**numbers, **pixels),
        categories={
            "hex": Metrics(**numbers, **pixels),
            "wing": Metrics(**numbers, **none),
        },
    )


def scores_table() -> pa.Table:
    """Two images and their scores."""
    return pa.table({"row": [0, 1], "score": pa.array([0.25, 0.5], pa.float32())})


def sweep_document() -> SweepDocument:
    """What a sweep of two points says of itself, one of which failed."""
    failed: Row = {
        "width": 4,
        "k": 2,
        "state": "failed",
        "failed_at": "score",
        "reason": "no masks",
    }
    return SweepDocument(
        id="nuts-to-bolts-tiny-00000004",
        config=SweepConfig(aux="nuts", target="bolts", backbone="tiny"),
        parents=SweepParents(aux=CACHE, target=CACHE),
        points=2,
        failed=[failed],
        figures=["heatmaps.png"],
    )


def figure_document() -> ReproducedDocument:
    """What a figure says of itself."""
    return ReproducedDocument(
        id="fig2-nuts-to-bolts-tiny-00000005", config=ReproduceConfig(), varied=FigureConfig()
    )


def threshold_document() -> ThresholdDocument:
    """A threshold of a given rate."""
    measured = Measured(
        n_normal=60,
        n_anomalous=5,
        fpr=0.0,
        tpr=0.8,
        precision=1.0,
        f1=0.9,
        normal_scores=(0.25, 0.5),
        anomalous_scores=(0.5, 0.75),
    )
    asked = ThresholdRequest(
        criterion="rate",
        rate=0.05,
        confidence=0.95,
        per_category=False,
        scoring=Scoring(tau=0.5, sigma=4.0, coefficients="ema"),
        calibrated_on=CalibratedOn(
            cache=CACHE, split=None, categories=[], good=[], bad=[], is_auxiliary=True
        ),
    )
    chosen = Chosen(category=None, threshold=0.625, promised=0.049, measured=measured)
    return ThresholdDocument(
        guides="nuts-tiny-c4-k2-00000002",
        name="line-3",
        asked=asked,
        chosen=[chosen],
        familiar="5" * 64,
    )


def latest_document() -> LatestDocument:
    """What `latest` means."""
    return LatestDocument(of="guides", id="nuts-tiny-c4-k2-00000002")


def _backbone(spec: BackboneSpec | None) -> Backbone:
    spec = spec or tiny_spec()
    return Backbone(name=spec.name, covers=spec.covers())


def forge_tensors(store, kind, identifier, change) -> None:
    """Change the tensors of a stored artifact, with JSON and digest to match."""
    place = Place(store, DOCUMENTS[kind], folder(kind, identifier))
    body, text = place.name(BODY[kind]), json.loads(store.get(place.name(JSON[kind])))
    data = store.get(body)
    carried = carried_document(data, body).decode()
    tensors = {
        name: change(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in decode_tensors(data, body).items()
    }
    forged = encode_tensors(tensors, carried)
    text["digest"] = hashlib.sha256(forged).hexdigest()
    store.replace(body, [forged])
    store.replace(place.name(JSON[kind]), [json.dumps(text).encode()])
