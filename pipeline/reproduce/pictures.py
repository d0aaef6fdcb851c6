"""The pictures of the figures, drawn from their points; beside them what the paper states."""

import math
from collections.abc import Mapping, Sequence

from cache.objects import Objects
from pipeline.configs import ReproduceConfig, ScoreConfig
from pipeline.drawing.canvas import Strip
from pipeline.drawing.heat import heat_strips
from pipeline.drawing.plots import Across, bar_strip, line_strip
from pipeline.drawing.points import Row, mean_and_spread, number
from pipeline.inputs import open_dataset
from pipeline.scoring.published import (
    NON_ZERO,
    OURS_BY_BACKBONE,
    DatasetFacts,
    Direction,
    direction_to,
    other_data,
    published,
)
from pipeline.tables.metrics import PUBLISHED
from pipeline.words import backbone_words, transfer_words
from spg_core.errors import ConfigError, IncompleteCache, NotInStore
from spg_core.pooling import Pooling

GUIDE_K = "guides.topk_guides"
_TAU = Across(field="tau", label="tau", ticks="tens", paper=(0.001, 100.0))
_GUIDE_K = Across(
    field=GUIDE_K, label="coefficients a guide keeps", ticks="tested", paper=(8.0, 1024.0)
)


def figure_strips(
    name: str,
    rows: Sequence[Row],
    config: ReproduceConfig,
    stated: Mapping[str, Direction],
) -> list[Strip]:
    """Draw the points of fig2, fig3, fig4 or figS1, a strip a direction.

    Args:
        name: of the figure.
        rows: points, each with its `direction`, `aux -> target`.
        config: what they were made by.
        stated: the published direction that one of ours is, where the data is the paper's.

    Raises: ConfigError for another name.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["direction"]), []).append(row)
    if name == "fig2":
        sets = {_title(one, config): rows for one, rows in found.items()}
        numbers = {_title(one, config): _published(stated, one, config) for one in found}
        return heat_strips(sets, {title: row for title, row in numbers.items() if row})
    return [_strip(name, one, rows, config, stated) for one, rows in found.items()]


def _strip(
    name: str,
    direction: str,
    rows: Sequence[Row],
    config: ReproduceConfig,
    stated: Mapping[str, Direction],
) -> Strip:
    row = _published(stated, direction, config)
    title = _title(direction, config)
    match name:
        case "fig3":
            return _fig3(rows, title, row)
        case "fig4":
            known = published(stated[direction]) if direction in stated else {}
            return _fig4(rows, _words(direction, config), known)
        case "figS1":
            used = NON_ZERO[stated[direction]] if direction in stated else 0
            return _fig_s1(rows, f"{title}, C = {config.width}, k = {config.k}", row, used)
        case other:
            raise ConfigError(f"figures are fig2, fig3, fig4 and figS1, got {other!r}")


def _title(direction: str, config: ReproduceConfig) -> str:
    return f"{_words(direction, config)}, {backbone_words(config.backbone)}"


def _words(direction: str, config: ReproduceConfig) -> str:
    back = direction == f"{config.target} -> {config.aux}"
    aux, target = (config.target, config.aux) if back else (config.aux, config.target)
    return transfer_words(aux, target)


def _published(
    stated: Mapping[str, Direction], direction: str, config: ReproduceConfig
) -> Row | None:
    """Give the published SPG by the backbone, where our data is the paper's."""
    method = OURS_BY_BACKBONE.get(config.backbone)
    if method is None or direction not in stated:
        return None
    return published(stated[direction])[method]


def _fig3(rows: Sequence[Row], title: str, stated: Row | None) -> Strip:
    points = [row for row in rows if 0 < number(row, "tau") < math.inf]
    references: dict[str, list[Row]] = {}
    for row in rows:
        if row not in points:
            references.setdefault(str(_pooling(row)), []).append(row)
    if stated is not None:
        references["maximum, as published"] = [stated]
    return line_strip(points, _TAU, ["image_auroc", "image_ap"], title, references)


def _pooling(row: Row) -> Pooling:
    """Give what is no point of the axis: the two ends of it, or another way to pool."""
    tau = number(row, "tau")
    return ScoreConfig(pool=str(row["pool"])).pooling if math.isnan(tau) else Pooling(tau)


def _fig4(rows: Sequence[Row], title: str, stated: Mapping[str, Row]) -> Strip:
    bars: dict[str, list[Row]] = {}
    for row in rows:
        bars.setdefault(backbone_words(str(row["backbone"])), []).append(row)
    known = {
        backbone_words(backbone): stated[method]
        for backbone, method in OURS_BY_BACKBONE.items()
        if method in stated
    }
    return bar_strip(bars, title, known)


def _fig_s1(rows: Sequence[Row], title: str, stated: Row | None, n_stated: int) -> Strip:
    usual = [row for row in rows if row.get("guides.sparsity") == "relu"]
    topk = [row for row in rows if row.get("guides.sparsity") != "relu"]
    names = ("ema_nnz_normal", "ema_nnz_anomaly")
    n_used, _ = mean_and_spread([sum(number(row, name) for name in names) for row in usual])
    shares = [share for row in usual if (share := number(row, "ema_start_share")) > 0.01]
    warned = f" ({max(shares):.0%} of the start in the average)" if shares else ""
    references = {f"ReLU + l1, {n_used:.0f} coefficients{warned}": usual}
    if stated is not None:
        references[f"ReLU + l1, {n_stated} coefficients, as published"] = [stated]
    return line_strip(topk, _GUIDE_K, PUBLISHED, title, references)


def published_directions(store: Objects, config: ReproduceConfig) -> dict[str, Direction]:
    """Give the published direction of each of ours whose data is the paper's; of others none."""
    facts = {
        dataset: _facts(store, dataset, config.backbone, key)
        for dataset, key in ((config.aux, config.aux_key), (config.target, config.target_key))
    }
    found: dict[str, Direction] = {}
    for aux, target in ((config.aux, config.target), (config.target, config.aux)):
        fitted, scored = facts[aux], facts[target]
        direction = None if scored is None else direction_to(scored)
        if scored is not None and direction and not other_data(direction, fitted, scored):
            found[f"{aux} -> {target}"] = direction
    return found


def _facts(store: Objects, dataset: str, backbone: str, key: str | None) -> DatasetFacts | None:
    try:
        data = open_dataset(store, dataset, backbone, key)
    except (NotInStore, IncompleteCache):
        return None
    return DatasetFacts(data.dataset, frozenset(data.manifest.categories), data.cache.n_images)
