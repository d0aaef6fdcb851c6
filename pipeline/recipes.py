"""The two recipes: the released code's defaults, and what the paper's text says differently.

Both stand beside each field: its default, and `Paper`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar, cast

from spg_core.errors import ConfigError
from spg_core.fields import paper_values

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def from_recipe(stage: type[Config], recipe: object, given: Mapping[str, object]) -> Config:
    """Make a stage's config from a named recipe and the fields a user set, which win.

    Raises: ConfigError for an unknown recipe or field.
    """
    match recipe:
        case "released":
            preset: dict[str, object] = {}
        case "paper":
            preset = paper_values(stage)
        case _:
            raise ConfigError(f"recipe is 'released' or 'paper', got {recipe!r}")
    fields = {field.name for field in dataclasses.fields(stage)}
    unknown = sorted(set(given) - fields)
    if unknown:
        raise ConfigError(f"{stage.__name__} has no field {', '.join(unknown)}")
    chosen = {**preset, **given}
    if "recipe" in fields:
        chosen["recipe"] = recipe
    return cast("Callable[..., Config]", stage)(**chosen)
