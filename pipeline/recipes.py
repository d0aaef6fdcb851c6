"""The two recipes: the released code's defaults, and what the paper's text says differently."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pipeline.configs import FitGuidesConfig, FitSaeConfig, ScoreConfig
from spg_core.errors import ConfigError

PAPER: dict[type[Any], dict[str, Any]] = {
    FitSaeConfig: {
        "loss": "sum",
        "auxk_weight": 0.0,
        "unit_norm": False,
        "tied_init": False,
        "clamp": False,
        "beta1": 0.9,
    },
    FitGuidesConfig: {
        "images_per_step": 16,
        "beta": 0.01,
        "dice": "anomaly",
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "mask_dead": False,
    },
    ScoreConfig: {"sigma": 0.0},
}
"""What the paper's text says differently from the released code, stage by stage."""

Config = TypeVar("Config", FitSaeConfig, FitGuidesConfig, ScoreConfig)


def from_recipe(stage: type[Config], recipe: str, given: Mapping[str, Any]) -> Config:
    """Make a stage's config from a named recipe and the fields a user set, which win.

    Raises: ConfigError for an unknown recipe or field.
    """
    match recipe:
        case "released":
            preset: dict[str, Any] = {}
        case "paper":
            preset = PAPER[stage]
        case _:
            raise ConfigError(f"recipe is 'released' or 'paper', got {recipe!r}")
    fields = {field.name for field in dataclasses.fields(stage)}
    unknown = sorted(set(given) - fields)
    if unknown:
        raise ConfigError(f"{stage.__name__} has no field {', '.join(unknown)}")
    chosen = {**preset, **given}
    if "recipe" in fields:
        chosen["recipe"] = recipe
    return stage(**chosen)
