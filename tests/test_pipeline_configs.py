"""pipeline.configs: every field of every config states what it takes, and refuses the rest."""

import dataclasses
import math
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from msgspec import Meta

import pipeline.configs as configs
from pipeline.configs import (
    Checked,
    ClusterConfig,
    ExtractConfig,
    ScoreConfig,
    StoreConfig,
    SweepConfig,
    caches,
)
from pipeline.options import field_help
from spg_core.errors import ConfigError, OptionsDisagree
from spg_core.fields import alternatives, bounds, field_types, is_list, option_name, words
from spg_core.pooling import Pooling

STAGES: list[type] = [
    one
    for module in (configs, caches)
    for one in vars(module).values()
    if isinstance(one, type) and dataclasses.is_dataclass(one) and one is not Checked
]
FIELDS = [
    pytest.param(stage, name, kind, id=f"{stage.__name__}.{name}")
    for stage in STAGES
    for name, kind in field_types(stage).items()
]
TRIED = [
    *(0, -1, 1, 10**9, 2**63, 2**64, 10**400, True, False),
    *(0.0, -1.0, 0.5, 1e300, 1e-300, math.nan, math.inf, -math.inf, -0.0),
    *(
        "",
        "word",
        "0",
        "1e9",
        "\0",
        b"bytes",
        None,
        (),
        [],
        {},
        object(),
        ("word",),
        (0,),
        [math.nan],
    ),
]
REQUIRED = {
    **{"backbone": "gabor", "dataset": "visa", "root": ".", "sae": "s", "guides": "g"},
    **{"scores": ("s",), "out": "d.onnx", "images": ("i.png",), "what": "table1"},
    **{"cache": "k", "source": "a", "destination": "b", "artifact": "x", "artifacts": ("x",)},
}


def listed(stage, name, value):
    """Give a value as a field takes it: in a list, where it takes one."""
    takes_list = is_list(field_types(stage)[name]) and not isinstance(value, tuple)
    return (value,) if takes_list else value


def made(stage, **given):
    required = {
        field.name: listed(stage, field.name, REQUIRED[field.name])
        for field in dataclasses.fields(stage)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in given
    }
    return stage(**required, **given)


def fits(kind, value):
    """Say it again in plain words: whether a value is of a type and in its range."""
    if get_origin(kind) in (UnionType, Union):
        return any(fits(one, value) for one in get_args(kind))
    metas = [one for one in get_args(kind)[1:] if isinstance(one, Meta)]
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(inner) in (UnionType, Union):
        return fits(inner, value)
    if get_origin(inner) is Literal:
        return value in get_args(inner)
    if get_origin(inner) is tuple:
        few = all(meta.min_length is None or len(value) >= meta.min_length for meta in metas)
        return isinstance(value, tuple) and few and all(fits(get_args(inner)[0], v) for v in value)
    if type(value) is not inner and not (inner is type(None) and value is None):
        return False
    return all(
        (meta.ge is None or value >= meta.ge)
        and (meta.gt is None or value > meta.gt)
        and (meta.le is None or value <= meta.le)
        and (meta.lt is None or value < meta.lt)
        and (meta.min_length is None or len(value) >= meta.min_length)
        for meta in metas
    )


@pytest.mark.parametrize(("stage", "name", "kind"), FIELDS)
def test_a_field_refuses_a_value_by_its_name_or_holds_one_of_its_range(stage, name, kind):
    for value in TRIED:
        held, refusal = tried(stage, name, value)

        if refusal is None:
            assert fits(kind, held), (value, held)
            assert not isinstance(held, float) or not math.isnan(held)
        else:
            assert refusal.startswith(f"{option_name(name, kind)} ")
            assert "\n" not in refusal


def tried(stage, name, value):
    """Give what the field holds then, or why it does not."""
    others = {"k": 1} if name == "width" else {"width": 10**6} if name == "k" else {}
    others = {"sparsifier": "relu"} if name == "l1" else others
    beside = {one: listed(stage, one, given) for one, given in others.items()}
    try:
        return getattr(made(stage, **{name: value}, **beside), name), None
    except ConfigError as error:
        return None, str(error)


@pytest.mark.parametrize(("stage", "name", "kind"), FIELDS)
def test_every_number_has_a_lower_and_an_upper_bound(stage, name, kind):
    for number in (int, float):
        if number in alternatives(kind):
            assert " or " in bounds(kind) or " to " in bounds(kind) or " and " in bounds(kind)
            with pytest.raises(ConfigError):
                made(stage, **{name: number(10**200)})


@pytest.mark.parametrize(("stage", "name", "kind"), FIELDS)
def test_every_field_is_explained_and_its_default_is_in_its_range(stage, name, kind):
    assert field_help(stage)[name].rstrip().endswith(".")
    assert fits(kind, getattr(made(stage), name))


@pytest.mark.parametrize(("stage", "name", "kind"), FIELDS)
def test_a_plain_text_is_a_name_a_path_or_a_word(stage, name, kind):
    single = [get_args(one)[0] if is_list(one) else one for one in alternatives(kind)]
    if str in {alternatives(one)[0] for one in single} and not words(kind):
        with pytest.raises(ConfigError):
            made(stage, **{name: ("",) if is_list(kind) else ""})


@pytest.mark.parametrize(
    ("stage", "wrong"),
    [
        (ExtractConfig, {"image_size": 0}),
        (ExtractConfig, {"layer": "first:2"}),
        (ExtractConfig, {"device": "gpu"}),
        (ExtractConfig, {"device": "cuda:-1"}),
        (ClusterConfig, {"workers": -1}),
        (ScoreConfig, {"tau": 1e300}),
        (ScoreConfig, {"tau": math.nan}),
        (ScoreConfig, {"sigma": 1001}),
        (SweepConfig, {"seed": (2**64,)}),
        (SweepConfig, {"memory_gb": math.nan}),
        (SweepConfig, {"memory_gb": 0}),
        (StoreConfig, {"store": ""}),
    ],
)
def test_what_was_accepted_once_is_refused(stage, wrong):
    with pytest.raises(ConfigError, match="it must be"):
        made(stage, **wrong)


@pytest.mark.parametrize(
    ("pool", "pooling"),
    [
        ("lse", Pooling(0.0)),
        ("max", Pooling(0.0)),
        ("mean", Pooling(math.inf)),
        ("top:0.01", Pooling(top=0.01)),
        ("top:.5", Pooling(top=0.5)),
        ("top:1", Pooling(top=1.0)),
        ("patches:0.01", Pooling(top=0.01, of="patches")),
    ],
)
def test_pool_says_how_maps_become_scores(pool, pooling):
    assert ScoreConfig(pool=pool).pooling == pooling


def test_one_way_of_pooling_has_one_config_however_it_is_typed():
    assert ScoreConfig(pool="max") == ScoreConfig()
    assert (
        ScoreConfig(pool="mean")
        == ScoreConfig(tau=math.inf)
        == ScoreConfig(pool="mean", tau=math.inf)
    )
    assert ScoreConfig(pool="lse", tau=0.5).pooling == Pooling(0.5)


@pytest.mark.parametrize(
    "pool",
    [
        "top",
        "top:",
        "top:0",
        "top:0.0",
        "top:1.01",
        "top:2",
        "top:-0.1",
        "top:nan",
        "patches",
        "patches:0",
        "top:1%",
        "median",
    ],
)
def test_a_pool_that_cannot_be_says_what_can(pool):
    with pytest.raises(ConfigError, match=r"lse, max, mean, top:Q or patches:Q with Q above 0"):
        ScoreConfig(pool=pool)


@pytest.mark.parametrize("pool", ["max", "mean", "top:0.1", "patches:0.1"])
def test_tau_is_for_lse_alone(pool):
    with pytest.raises(OptionsDisagree, match=f"--pool {pool} and --tau 0.5"):
        ScoreConfig(pool=pool, tau=0.5)


def test_tau_takes_infinity_the_mean():
    assert ScoreConfig(tau=math.inf).tau == math.inf
    assert ScoreConfig(tau=1e6).tau == 1e6


def test_a_home_folder_is_expanded_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert StoreConfig(store="~/store").store == f"{tmp_path}/store"
    assert made(ExtractConfig, root="~/images", weights="~/w").weights_of("gabor") == tmp_path / "w"
    assert made(ExtractConfig, name="~tilde").name == "~tilde"
    with pytest.raises(ConfigError, match="no such home folder"):
        StoreConfig(store="~nobody-of-that-name/store")
