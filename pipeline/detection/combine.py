"""Combine: several parts as one artifact, with all that was fitted to let them meet."""

from collections.abc import Sequence

import torch

from cache.objects import Objects
from pipeline.artifacts import (
    Artifact,
    artifact_id,
    make_once,
    save_artifact,
    settings,
)
from pipeline.artifacts.combination import (
    CombinationDocument,
    CombinationParents,
    CombinedPart,
    StoredScale,
)
from pipeline.artifacts.documents import GuidesDocument
from pipeline.artifacts.terms import CacheParent
from pipeline.configs import CombineConfig, Recipe
from pipeline.detection.find import AnyDetector, SingleDetector, find_detector, fitted_on, recipe_of
from pipeline.detection.fit import fit_scales, fit_weights, sample_pixels
from pipeline.detection.parts import part_of
from pipeline.detection.sources import open_sources
from pipeline.machine.device import resolve_device
from spg_core.errors import ArtifactError, ConfigError
from spg_core.meeting import Scale


def combine(
    store: Objects,
    references: Sequence[str],
    config: CombineConfig,
    *,
    name: str | None = None,
    direct: bool = True,
) -> Artifact[CombinationDocument]:
    """Combine guides and memories, or find what the same request combined before.

    `latest` means it from then on, unless it is only a step (`direct`) of something else; `name`
    means it, too.

    Args:
        store: holds the parts, and the auxiliary tokens where anything is to be fitted.
        references: of two parts or more, by whatever they are called.
        config: how they meet.

    Raises: ConfigError, NotInStore, ArtifactError, FitError, StoreError.
    """
    parts = _read_parts(store, references)
    identifier = combination_id(parts, config)
    return make_once(
        store,
        CombinationDocument,
        identifier,
        lambda: {identifier: _fit(store, parts, config, identifier)},
        direct=direct,
        name=name,
    )


def find_or_combine(
    store: Objects, references: Sequence[str], config: CombineConfig
) -> AnyDetector:
    """Give the one detector that is named, or in passing what several come to. Raises: as both."""
    if len(references) == 1:
        return find_detector(store, references[0])
    return combine(store, references, config, direct=False)


def combination_id(parts: Sequence[SingleDetector], config: CombineConfig) -> str:
    """Name what a config makes of parts."""
    stem = f"{parts[0].id.rpartition('-')[0]}-{config.combine}-of-{len(parts)}"
    named = [f"{one.place.kind}/{one.id}" for one in parts]
    return artifact_id(stem, {"parts": named, "config": settings(config)})


def is_scaled(parts: Sequence[SingleDetector], config: CombineConfig) -> bool:
    """Tell whether the parts' values are put on one scale.

    The mean of guides is not: p_A means the same in each, and scaling cost 1 to 3 points of AUPRO.
    A maximum and learned weights gain by it (docs/design/011-detectors.md).
    """
    if config.scale != "auto":
        return config.scale == "logistic"
    kinds = {one.place.kind for one in parts}
    if "guides" not in kinds:
        return False
    return len(kinds) > 1 or config.combine != "mean"


def _read_parts(store: Objects, references: Sequence[str]) -> list[SingleDetector]:
    parts: list[SingleDetector] = []
    for reference in references:
        found = find_detector(store, reference)
        if isinstance(found.document, CombinationDocument):
            raise ArtifactError(
                f"{found.id} is a combination already; combine its parts instead: "
                f"{','.join(one.id for one in found.document.parts)}"
            )
        parts.append(found)
    ids = [one.id for one in parts]
    if len(set(ids)) < 2 or len(set(ids)) < len(ids):
        raise ConfigError(
            f"--guides names {', '.join(ids)}; a combination is of two parts or more, each once"
        )
    return parts


def _fit(
    store: Objects, parts: Sequence[SingleDetector], config: CombineConfig, identifier: str
) -> Artifact[CombinationDocument]:
    store.check_writable()
    weights: list[float] = [1 / len(parts)] * len(parts)
    scales: list[Scale | None] = [None] * len(parts)
    auxiliary = None
    if len(_drawing(parts)) > 1 and (is_scaled(parts, config) or config.combine == "learned"):
        auxiliary, weights, scales = _fit_meeting(store, parts, config)
    document = CombinationDocument(
        id=identifier,
        config=config,
        parents=CombinationParents(
            cache=auxiliary,
            guides=[one.id for one in parts if one.place.kind == "guides"],
            memories=[one.id for one in parts if one.place.kind == "memories"],
        ),
        fitted_on=fitted_on(_first_guides(parts) or parts[0]),
        recipe=_recipe(parts),
        backbone=(_drawing(parts) or parts)[0].document.backbone,
        parts=[
            CombinedPart(
                kind="guides" if one.place.kind == "guides" else "memories",
                id=one.id,
                weight=weight,
                scale=None if scale is None else StoredScale(**vars(scale)),
            )
            for one, weight, scale in zip(parts, weights, scales, strict=True)
        ],
    )
    return save_artifact(store, document, {"weights": torch.tensor(weights)})


def _fit_meeting(
    store: Objects, artifacts: Sequence[SingleDetector], config: CombineConfig
) -> tuple[CacheParent, list[float], list[Scale | None]]:
    """Fit scales, and weights where asked, on the dataset that the first guides were fitted on."""
    guides = _first_guides(artifacts)
    if guides is None:
        raise ConfigError(
            f"--combine {config.combine} --scale {config.scale} is fitted on an auxiliary dataset "
            "with masks, which memories alone have none of; use --combine mean --scale none"
        )
    source = fitted_on(guides)
    device = resolve_device(config.device)
    drawing = _drawing(artifacts)
    parts = [part_of(one, config.coefficients).to(device) for one in drawing]
    data = open_sources(store, source.dataset, [part.spec for part in parts], source.key)
    pixels = sample_pixels(parts, data)
    scales: list[Scale | None] = [None] * len(parts)
    if is_scaled(artifacts, config):
        scales = [*fit_scales(pixels, [one.id for one in drawing])]
    weights = [1 / len(parts)] * len(parts)
    if config.combine == "learned":
        weights = fit_weights(pixels, scales)
    return source, *_with_whole(artifacts, weights, scales)


def _drawing(artifacts: Sequence[SingleDetector]) -> list[SingleDetector]:
    """Give those that read patches; guides on CLS tokens draw no map."""
    return [
        one
        for one in artifacts
        if not (isinstance(one.document, GuidesDocument) and one.document.config.on == "cls")
    ]


def _with_whole(
    artifacts: Sequence[SingleDetector], weights: Sequence[float], scales: Sequence[Scale | None]
) -> tuple[list[float], list[Scale | None]]:
    """Give weights and scales of all parts: those on CLS tokens meet by themselves, as they are."""
    drawn = iter(zip(weights, scales, strict=True))
    share = len(weights) / len(artifacts)
    drawing = {one.id for one in _drawing(artifacts)}
    found = [
        next(drawn) if one.id in drawing else (1 / (len(artifacts) * share), None)
        for one in artifacts
    ]
    return [weight * share for weight, _ in found], [scale for _, scale in found]


def _first_guides(parts: Sequence[SingleDetector]) -> Artifact[GuidesDocument] | None:
    return next((one for one in parts if isinstance(one.document, GuidesDocument)), None)


def _recipe(parts: Sequence[SingleDetector]) -> Recipe:
    return recipe_of(_first_guides(parts) or parts[0])
