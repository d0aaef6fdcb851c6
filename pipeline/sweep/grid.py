"""A grid: lists of values as a user types them, and the configurations they span."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.configs import (
    FitGuidesConfig,
    FitSaeConfig,
    ScoreConfig,
    SweepConfig,
)
from pipeline.recipes import from_recipe
from spg_core.errors import ConfigError, OptionsDisagree

_STAGES: dict[str, type[Any]] = {
    "sae": FitSaeConfig,
    "guides": FitGuidesConfig,
    "score": ScoreConfig,
}
# Set by options of their own, so that one value cannot be given twice.
_OWN_OPTIONS = ("recipe", "width", "k", "seed", "order", "device")


@dataclass(frozen=True)
class Point:
    """One configuration of all three stages, and the values that tell it from the others."""

    sae: FitSaeConfig
    guides: FitGuidesConfig
    score: ScoreConfig
    axes: dict[str, Any]
    """`recipe`, `width`, `k`, `seed`, `order` and what `vary` names, such as `guides.beta`."""


@dataclass(frozen=True)
class Grid:
    """Every combination of the axes, the last axis running fastest."""

    axes: dict[str, list[Any]]
    """The values of each axis."""
    points: list[Point]
    impossible: list[dict[str, Any]]
    """Combinations of values that do not go together, as rows that say why."""


def read_grid(config: SweepConfig) -> Grid:
    """Give the grid that a config spans. Raises: ConfigError for a value that cannot be."""
    axes: dict[str, list[Any]] = {
        "recipe": split_values("recipe", config.recipe, ""),
        "width": split_values("width", config.width, FitSaeConfig.width),
        "k": split_values("k", config.k, FitSaeConfig.k),
        "seed": split_values("seed", config.seed, FitSaeConfig.seed),
        "order": split_values("order", config.order, FitSaeConfig.order),
    }
    for text in config.vary or ():
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


def split_values(name: str, text: str, like: Any) -> list[Any]:
    """Give the values of a list such as `2048,4096`, each once and of the type of `like`.

    Raises: ConfigError.
    """
    values = [_parse(name, part.strip(), like) for part in text.split(",") if part.strip()]
    if not values:
        raise ConfigError(f"{name} has no value, got {text!r}; expected a list such as 1,2,3")
    return list(dict.fromkeys(values))


def _parse(name: str, text: str, like: Any) -> Any:
    match like:
        case bool():
            if text.lower() not in ("true", "false"):
                raise ConfigError(f"{name} is true or false, got {text!r}")
            return text.lower() == "true"
        case int() | float():
            try:
                return type(like)(text)
            except ValueError:
                raise ConfigError(f"{name} is a number, got {text!r}") from None
        case _:
            return text


def _varied(text: str) -> tuple[str, list[Any]]:
    """Read `stage.field=value,value`. Raises: ConfigError."""
    name, equals, values = text.partition("=")
    stage, _, field = name.strip().partition(".")
    fields: Sequence[Any] = dataclasses.fields(_STAGES[stage]) if stage in _STAGES else ()
    defaults = {one.name: one.default for one in fields if one.name not in _OWN_OPTIONS}
    if not equals or field not in defaults:
        known = f"; {stage} has {', '.join(defaults)}" if defaults else ""
        raise ConfigError(
            "--vary is STAGE.FIELD=VALUE,VALUE with stage sae, guides or score, got "
            f"{text!r}{known}"
        )
    return f"{stage}.{field}", split_values(f"{stage}.{field}", values, defaults[field])


def _point(axes: dict[str, Any], config: SweepConfig) -> Point:
    recipe, device = axes["recipe"], config.device
    varied: dict[str, dict[str, Any]] = {stage: {"device": device} for stage in _STAGES}
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
