"""A grid: lists of values as a user types them, and the configurations they span."""

import itertools
from dataclasses import dataclass
from typing import cast

from pipeline.artifacts.terms import Cell, Row
from pipeline.configs import (
    FitGuidesConfig,
    FitSaeConfig,
    ScoreConfig,
    SweepConfig,
)
from pipeline.recipes import from_recipe
from spg_core.errors import ConfigError, OptionsDisagree
from spg_core.fields import check_value, field_types
from spg_core.nearest import near

_STAGES: dict[str, type[FitSaeConfig] | type[FitGuidesConfig] | type[ScoreConfig]] = {
    "sae": FitSaeConfig,
    "guides": FitGuidesConfig,
    "score": ScoreConfig,
}
# Set by options of their own, so that one value cannot be given twice.
_OWN_AXES = ("recipe", "width", "k", "seed", "order")


@dataclass(frozen=True)
class Point:
    """One configuration of all three stages, and the values that tell it from the others."""

    sae: FitSaeConfig
    guides: FitGuidesConfig
    score: ScoreConfig
    axes: Row
    """`layer` where layers are varied, `recipe`, `width`, `k`, `seed`, `order` and what `vary`
    names, such as `guides.beta`."""
    layer: int | None = None
    """Block whose tokens are taken, from 0; None where it is not varied."""


@dataclass(frozen=True)
class Grid:
    """Every combination of the axes, the last axis running fastest."""

    axes: dict[str, list[Cell]]
    """The values of each axis."""
    points: list[Point]
    impossible: list[Row]
    """Combinations of values that do not go together, as rows that say why."""


def read_grid(config: SweepConfig) -> Grid:
    """Give the grid that a config spans. Raises: ConfigError for a value that cannot be."""
    axes: dict[str, list[Cell]] = {
        name: list(dict.fromkeys(getattr(config, name))) for name in _OWN_AXES
    }
    for text in config.vary:
        name, values = _varied(text)
        if name in axes:
            raise ConfigError(f"--vary names {name} twice; give all its values at once")
        axes[name] = values
    grid = Grid(axes, [], [])
    for chosen in itertools.product(*axes.values()):
        combination = dict(zip(axes, chosen, strict=True))
        try:
            grid.points.append(_point(combination, config))
        except OptionsDisagree as error:
            failed = {"state": "failed", "failed_at": "fit-sae", "reason": str(error)}
            grid.impossible.append({**combination, **failed})
    return grid


def _varied(text: str) -> tuple[str, list[Cell]]:
    """Read `stage.field=value,value`. Raises: ConfigError."""
    name, equals, values = text.partition("=")
    stage, _, field = name.strip().partition(".")
    every = field_types(_STAGES[stage]) if stage in _STAGES else {}
    kinds = {one: kind for one, kind in every.items() if one not in (*_OWN_AXES, "device")}
    if not equals or field not in kinds:
        known = f"; {stage} has {', '.join(kinds)}{near(field, kinds)}" if kinds else ""
        raise ConfigError(
            "--vary is STAGE.FIELD=VALUE,VALUE with stage sae, guides or score, got "
            f"{text!r}{known}"
        )
    given = [one.strip() for one in values.split(",") if one.strip()]
    if not given:
        raise ConfigError(f"--vary {name.strip()} has no value; give one or more, as in {name}=1,2")
    found = [check_value(f"vary {stage}.{field}", kinds[field], one, as_text=True) for one in given]
    return f"{stage}.{field}", list(dict.fromkeys(cast("list[Cell]", found)))


def _point(axes: Row, config: SweepConfig) -> Point:
    recipe, device = axes["recipe"], config.device
    varied: dict[str, dict[str, object]] = {stage: {"device": device} for stage in _STAGES}
    varied["sae"] |= {name: axes[name] for name in ("width", "k", "seed", "order")}
    varied["guides"] |= {"seed": axes["seed"]}
    for name, value in axes.items():
        stage, dot, field = name.partition(".")
        if dot:
            varied[stage][field] = value
    return Point(
        sae=from_recipe(FitSaeConfig, recipe, varied["sae"]),
        guides=from_recipe(FitGuidesConfig, recipe, varied["guides"]),
        score=from_recipe(ScoreConfig, recipe, varied["score"]),
        axes=axes,
    )
