"""The stages as plain functions, for notebooks and scripts; `spg_pipe` hands them out.

    fit_sae("spg-store", dataset="visa", backbone="dinov3", k=16)

Each takes the options of its command by their names, in Python's types, with the same defaults,
ranges and recipes, and a store as a folder, a URL or an open one.
"""

import inspect
import numbers
import os
import textwrap
from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from cache.reader import TokenCache
from cache.store import AnyStore, open_store
from pipeline import stages
from pipeline.chosen import chosen_key
from pipeline.configs import CacheWords
from pipeline.inputs import open_dataset
from pipeline.options import Option, Stage, fill, help_of, options_of
from pipeline.prediction import stages as judging
from pipeline.registry import stages as keeping
from spg_core.errors import ConfigError
from spg_core.fields import ARGUMENT, FieldType, is_list

if TYPE_CHECKING:
    from pipeline.prediction.predict import Prediction
    from pipeline.prediction.predictions import Predictions

Made = TypeVar("Made")
Given = TypeVar("Given")


def open_cache(
    store: AnyStore,
    dataset: str,
    backbone: str,
    key: str | None = None,
    *,
    layer: int | None = None,
    image_size: int | None = None,
    final_norm: bool | None = None,
) -> TokenCache:
    """Open the token cache of a dataset and a backbone.

    Where there are several, the key or its start chooses, or the layer (-1 is the last), the input
    size and the final norm. Its `tokens(rows)` are arrays `(n, patch, dim)` float16.

    Raises: NotInStore, IncompleteCache, StoreError, CorruptStore, ConfigError.
    """
    objects = open_store(store, read_only=True)
    words = CacheWords(
        layer=None if layer is None else str(layer), image_size=image_size, final_norm=final_norm
    )
    key = chosen_key(objects, dataset, backbone, words, key)
    return open_dataset(objects, dataset, backbone, key).cache


def plain(stage: Callable[..., Made], give: Callable[[Made], Given]) -> Callable[..., Given]:
    """Let a function of a store and configs be called with the configs' fields.

    Args:
        stage: the function.
        give: turns what it makes into what is given back.
    """
    options = options_of(stage)
    by_place = ["store", *(one.name for one in options if ARGUMENT in one.marks)]
    kinds = {one.name: one.kind for one in options}

    @wraps(stage)
    def call(*things: object, **given: object) -> Given:
        asked = dict(zip(by_place, things, strict=False)) | given
        if len(things) > len(by_place) or "store" not in asked:
            raise ConfigError(
                f"{stage.__name__} takes {', '.join(by_place)} by place and the rest by name"
            )
        store = asked.pop("store")
        values = {name: _value(kinds.get(name), value) for name, value in asked.items()}
        return give(stage(store, **fill(stage, values)))

    call.__signature__ = _signature(stage, options)  # type: ignore[attr-defined]
    call.__doc__ = f"{inspect.getdoc(stage)}\n\nArgs:\n{_told(options)}"
    return call


def _value(kind: FieldType, given: object) -> object:
    """Give what a config takes for what a notebook has: paths, NumPy's numbers, one for a list."""
    if isinstance(given, os.PathLike):
        given = os.fspath(given)
    elif isinstance(given, numbers.Integral) and not isinstance(given, bool):
        given = int(given)
    elif isinstance(given, numbers.Real) and not isinstance(given, int):
        given = float(given)
    if kind is not None and is_list(kind) and given is not None:
        many = given if isinstance(given, list | tuple | range) else (given,)
        return tuple(_value(None, one) for one in many)
    return given


def _signature(stage: Stage, options: list[Option]) -> inspect.Signature:
    by_place, by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    told = [inspect.Parameter("store", by_place)]
    for one in sorted(options, key=lambda one: ARGUMENT not in one.marks):
        place = by_place if ARGUMENT in one.marks else by_name
        default = inspect.Parameter.empty if one.is_required else one.default
        told.append(inspect.Parameter(one.name, place, default=default))
    return inspect.Signature(told, return_annotation=inspect.signature(stage).return_annotation)


def _told(options: list[Option]) -> str:
    lines = [f"{one.name}: {help_of(one)}" for one in options]
    lines = ["store: Folder or URL of the store, or an open one.", *lines]
    wrapped = (textwrap.fill(one, 96, subsequent_indent="    ") for one in lines)
    return textwrap.indent("\n".join(wrapped), "    ")


def _as_it_is(made: Made) -> Made:
    return made


def _predictions(made: "Iterable[Prediction]") -> "Predictions":
    from pipeline.prediction.predictions import Predictions  # imports torch

    return Predictions(made)


extract = plain(stages.extract, _as_it_is)
fit_sae = plain(stages.fit_sae, _as_it_is)
fit_guides = plain(stages.fit_guides, _as_it_is)
combine = plain(stages.combine, _as_it_is)
fit_memory = plain(stages.fit_memory, _as_it_is)
score = plain(stages.score, _as_it_is)
table = plain(stages.table, lambda made: made[1])
sweep = plain(stages.sweep, _as_it_is)
reproduce = plain(stages.reproduce, _as_it_is)
atoms = plain(stages.atoms, _as_it_is)
calibrate = plain(judging.calibrate, _as_it_is)
predict = plain(judging.predict, _predictions)
export = plain(judging.export, _as_it_is)
push = plain(keeping.push, _as_it_is)
pull = plain(keeping.pull, _as_it_is)
