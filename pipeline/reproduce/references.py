"""The method beside the simpler ones that every reviewer asks for, on all that is cached.

SPG on each layer that both datasets have, and on all of them together; guides over no dictionary,
principal directions and random atoms; the nearest normal token, of a few images. Each by every
seed. What cannot be made is left out, and the notes say why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import GuidesDocument, ScoresDocument
from pipeline.configs import (
    CombineConfig,
    FigureConfig,
    FitMemoryConfig,
    ReproduceConfig,
    ScoreConfig,
)
from pipeline.detection.combine import combine
from pipeline.detection.find import AnyDetector
from pipeline.fitting.guides import fit_guide_group
from pipeline.fitting.memory import fit_memory
from pipeline.fitting.sae import fit_sae
from pipeline.fitting.start_remark import remark_start
from pipeline.reproduce.cached_layers import CachedLayer, cached_layers
from pipeline.reproduce.figures import directions, seeds_of
from pipeline.reproduce.table1 import stage_configs
from pipeline.scoring.overlap import remark_shared
from pipeline.scoring.score import score_group
from pipeline.scoring.side_by_side import group_seeds, mark_best, seed_note
from pipeline.tables.metrics import PUBLISHED
from pipeline.tables.of_metrics import Row, Table
from pipeline.terminal.progress import say
from pipeline.tracking import Kind
from spg_core.errors import FitError, SpgError

_CONTROLS: Sequence[Literal["none", "pca", "random"]] = ("none", "pca", "random")


@dataclass(frozen=True)
class References:
    """The table, and the scores it was made from."""

    table: Table
    scores: list[Artifact[ScoresDocument]]


@dataclass(frozen=True)
class _Fitted:
    """A detector, or why there is none, and the key of the target's cache of its (first) layer."""

    made: AnyDetector | SpgError
    key: str


def references(
    store: Objects, config: ReproduceConfig, varied: FigureConfig, track: Kind | None = None
) -> References:
    """Fit and score every reference in the directions asked for; what is there is used.

    Raises: as `cached_layers`, before the first fit, and as `fit_sae`.
    """
    planned = [(one, cached_layers(store, one)) for one in directions(config)]
    rows: list[Row] = []
    notes = [f"in %; AUPRO {config.aupro}; * the best of its direction"]
    scores: list[Artifact[ScoresDocument]] = []
    for one, layers in planned:
        section = f"{one.aux} -> {one.target}"
        say(f"\n{section}")
        remark_shared(layers[0].aux, layers[0].target)
        made, left_out = _score_all(store, one, _fit_all(store, one, varied, layers, track))
        groups = group_seeds(store, [each.document for each in made])
        rows += mark_best([replace(group.row(None), section=section) for group in groups])
        notes += [f"{section}: {note}" for note in (*left_out, *seed_note(groups))]
        scores += made
    return References(Table(metrics=PUBLISHED, rows=rows, notes=notes, of="method"), scores)


def _fit_all(
    store: Objects,
    config: ReproduceConfig,
    varied: FigureConfig,
    layers: Sequence[CachedLayer],
    track: Kind | None,
) -> list[_Fitted]:
    """Fit what is asked for, by every seed."""
    found: list[_Fitted] = []
    for seed in seeds_of(config, varied):
        found += _fit_guides(store, replace(config, seed=seed), layers, track)
        for shots in dict.fromkeys(varied.shots):
            found += _fit_memories(store, FitMemoryConfig(shots=shots, seed=seed), layers)
    return found


def _fit_guides(
    store: Objects, config: ReproduceConfig, layers: Sequence[CachedLayer], track: Kind | None
) -> Iterator[_Fitted]:
    """Yield guides of each layer and of all of them, and the controls on the last."""
    stages = stage_configs(config)
    spg: list[_Fitted] = []
    controls: list[_Fitted] = []
    for layer in layers:
        sae = fit_sae(store, layer.aux, stages.sae, direct=False, track=track)
        own = [stages.guides]
        if layer is layers[-1]:
            own += [replace(stages.guides, dictionary=kind) for kind in _CONTROLS]
        wanted = [(sae, one) for one in own]
        made = fit_guide_group(store, wanted, track=track).values()
        first, *others = [_Fitted(one, layer.target.cache.key) for one in made]
        spg.append(first)
        controls += others
    fitted = [one.made for one in spg if not isinstance(one.made, SpgError)]
    documents = [one.document for one in fitted if isinstance(one.document, GuidesDocument)]
    remark_start([one.training.ema_start_share for one in documents])
    yield from (*spg, *_together(store, spg), *controls)


def _fit_memories(
    store: Objects, config: FitMemoryConfig, layers: Sequence[CachedLayer]
) -> Iterator[_Fitted]:
    """Yield the memory of the last layer, and of all layers together."""
    found = [_Fitted(_fit_memory(store, config, one), one.target.cache.key) for one in layers]
    yield from (found[-1], *_together(store, found))


def _fit_memory(
    store: Objects, config: FitMemoryConfig, layer: CachedLayer
) -> AnyDetector | SpgError:
    try:
        if layer.train is None:
            raise FitError(
                f"memories: no cache of {layer.target.dataset} holds normal train images of the "
                f"layer of {layer.target.cache.key}; extract it with --split train"
            )
        return fit_memory(store, layer.train, config, direct=False)
    except SpgError as error:
        return error


def _together(store: Objects, parts: Sequence[_Fitted]) -> Iterator[_Fitted]:
    """Yield the mean of the maps of several parts, where all of them are there."""
    made = [one.made for one in parts if not isinstance(one.made, SpgError)]
    if len(made) == len(parts) > 1:
        ids = [one.id for one in made]
        yield _Fitted(combine(store, ids, CombineConfig(), direct=False), parts[0].key)


def _score_all(
    store: Objects, config: ReproduceConfig, fitted: Sequence[_Fitted]
) -> tuple[list[Artifact[ScoresDocument]], list[str]]:
    """Score the target with all; give the scores, and why something has none, each reason once."""
    scoring = stage_configs(config).score
    found: dict[int, Artifact[ScoresDocument] | SpgError] = {}
    wanted: dict[str, dict[int, tuple[AnyDetector, ScoreConfig]]] = {}
    for at, one in enumerate(fitted):
        if isinstance(one.made, SpgError):
            found[at] = one.made
        else:
            wanted.setdefault(one.key, {})[at] = (one.made, scoring)
    for key, members in wanted.items():
        made = score_group(store, list(members.values()), config.target, key=key)
        found |= dict(zip(members, made, strict=True))
    in_order = [found[at] for at in range(len(fitted))]
    failed = [f"left out: {one}" for one in in_order if isinstance(one, SpgError)]
    scored = [one for one in in_order if not isinstance(one, SpgError)]
    return scored, list(dict.fromkeys(failed))
