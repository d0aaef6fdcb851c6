"""The options of a stage, read off the configs it takes, the only place where they are declared.

A function of a store and configs, such as `fit_sae(store, source, config)`, is all that a command
and a call from a notebook are made from. Its configs' fields are the options, by their names; text
below a field is its help. Only what a user gave is handed on, so that it wins over a recipe.

    options_of(fit_sae)           dataset, backbone, key, recipe, width, ..
    fill(fit_sae, {"k": 16, ..})  {"source": FitSaeSource(..), "config": FitSaeConfig(k=16)}
"""

import ast
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic, get_args, get_origin

from pipeline.recipes import Config, from_recipe
from spg_core.errors import ConfigError
from spg_core.fields import FieldType, bounds, check_value, field_types, paper_values
from spg_core.nearest import near

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Stage = Callable[..., object]
"""A function of a store and configs."""


@dataclass(frozen=True)
class Asked(Generic[Config]):
    """What a user set of a config whose recipe is not known yet: the guides' own."""

    stage: type[Config]
    values: Mapping[str, object]

    def __post_init__(self) -> None:
        """Raises: ConfigError for a value out of range, before anything is opened."""
        self.under("released")

    def under(self, recipe: str) -> Config:
        """Give the config: the recipe's, except for what was set."""
        return from_recipe(self.stage, recipe, self.values)


class Without:
    """Beside a function's parameter: fields of its config that are no options of it."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True)
class Option:
    """One field that can be set."""

    name: str
    kind: FieldType
    default: object
    """`MISSING` where it must be given."""
    help: str
    paper: object = None
    """What the paper's recipe says instead, where it does."""

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is MISSING

    @property
    def marks(self) -> tuple[object, ...]:
        """What stands beside its type."""
        return get_args(self.kind)[1:] if get_origin(self.kind) is Annotated else ()


@dataclass(frozen=True)
class _Part:
    """A parameter of a function that takes a config."""

    parameter: str
    stage: "type[DataclassInstance]"
    is_asked: bool
    without: tuple[str, ...]


def options_of(function: Stage) -> list[Option]:
    """List what can be set, in the order of the function's configs and of their fields."""
    found = []
    for part in _parts(function):
        kinds, told = field_types(part.stage), field_help(part.stage)
        paper = paper_values(part.stage)
        for field in fields(part.stage):
            if field.name not in part.without:
                help_text, instead = told[field.name], paper.get(field.name)
                default = _default(field)
                found.append(Option(field.name, kinds[field.name], default, help_text, instead))
    return found


def help_of(option: Option) -> str:
    """Give an option's help: its text, its range, and what the paper's recipe says instead."""
    notes = [bounds(option.kind)] if bounds(option.kind) else []
    if option.paper is not None:
        notes.append(f"recipe paper: {_word(option.paper)}")
    return f"{option.help} ({'; '.join(notes)})" if notes else option.help


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value}"


def from_text(option: Option, text: object) -> object:
    """Read what was typed for an option. Raises: ConfigError."""
    return check_value(option.name, option.kind, text, as_text=True)


def fill(function: Stage, given: Mapping[str, object]) -> dict[str, object]:
    """Make the configs of a function from what a user gave. Raises: ConfigError."""
    known = [option.name for option in options_of(function)]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{function.__name__} has no option {name!r}{near(name, known)}; it has "
                f"{', '.join(known)}"
            )
    made = {}
    for part in _parts(function):
        names = {field.name for field in fields(part.stage)} - set(part.without)
        own = {name: value for name, value in given.items() if name in names}
        made[part.parameter] = _config(part, own)
    return made


def _config(part: _Part, own: dict[str, object]) -> object:
    if part.is_asked:
        return Asked(part.stage, own)
    defaults = {field.name: _default(field) for field in fields(part.stage)}
    missing = [name for name, value in defaults.items() if value is MISSING and name not in own]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given")
    if paper_values(part.stage):
        return from_recipe(part.stage, own.pop("recipe", defaults["recipe"]), own)
    make: Callable[..., object] = part.stage
    return make(**own)


def _parts(function: Stage) -> list[_Part]:
    found = []
    for parameter in inspect.signature(function).parameters.values():
        kind: FieldType = parameter.annotation
        without: tuple[str, ...] = ()
        if get_origin(kind) is Annotated:
            kind, *marks = get_args(kind)
            without = next((mark.names for mark in marks if isinstance(mark, Without)), ())
        is_asked = get_origin(kind) is Asked
        stage = get_args(kind)[0] if is_asked else kind
        if is_dataclass(stage):
            found.append(_Part(parameter.name, stage, is_asked, without))  # type: ignore[arg-type]
    return found


def _default(field: "Field[object]") -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def field_help(stage: type) -> dict[str, str]:
    """Give the text below each field of a dataclass, those it inherits included."""
    told: dict[str, str] = {}
    for one in reversed(stage.__mro__[:-1]):
        told |= _documented(one.__module__).get(one.__qualname__, {})
    return told


@cache
def _documented(module: str) -> dict[str, dict[str, str]]:
    """Read the texts below fields of a module's classes: class -> field -> text."""
    source = getattr(sys.modules[module], "__file__", None)
    tree = ast.parse(Path(source).read_text()) if source else ast.Module([], [])
    return {one.name: _texts(one) for one in tree.body if isinstance(one, ast.ClassDef)}


def _texts(one: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, below in zip(one.body, one.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found
