"""spg_core.fields: a config's ranges stand beside its fields and are checked when it is made."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from msgspec import Meta

from spg_core.errors import ConfigError
from spg_core.fields import (
    Count,
    FilePath,
    Name,
    Paper,
    Seed,
    Weight,
    check_fields,
    describe,
    field_types,
    paper_values,
)


@dataclass(frozen=True, kw_only=True)
class Named:
    path: FilePath = "x"
    paths: Annotated[tuple[FilePath, ...], Meta(min_length=1)] = ("x",)
    name: Name = "x"

    def __post_init__(self) -> None:
        check_fields(self)


def test_a_home_folder_is_meant_by_each_path_of_a_list(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert Named(path="~/a").path == f"{tmp_path}/a"
    assert Named(paths=("~/a", "b~", "~")).paths == (f"{tmp_path}/a", "b~", str(tmp_path))
    with pytest.raises(ConfigError, match="'~nobody-of-this-name/a'; no such home folder"):
        Named(paths=("~nobody-of-this-name/a",))


def test_a_path_may_be_bytes_that_are_not_utf8_but_not_what_no_system_can_write():
    assert Named(path="/data/\udcff é 😀").path == "/data/\udcff é 😀"
    for half in ("\ud800", "a\udc7f", "\udd00/b", "\udfff"):
        with pytest.raises(ConfigError, match=r"--path is '.*'; it must be a path"):
            Named(path=half)
        with pytest.raises(ConfigError, match=r"--name is '.*'; it must be text, not empty"):
            Named(name=half)


@dataclass(frozen=True, kw_only=True)
class Sample:
    n_images: Count = 3
    weight: Weight = 0.5
    tau: Annotated[float, Meta(ge=0)] = 0.0
    recipe: Literal["released", "paper"] = "released"
    largest: Annotated[float, Meta(gt=0, le=10)] | None = None
    seeds: tuple[Seed, ...] = (1,)
    flag: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


def test_what_is_in_range_is_kept_and_a_whole_number_becomes_a_float():
    sample = Sample(n_images=1, weight=1, largest=10, seeds=[3, 4])

    assert sample == Sample(n_images=1, weight=1.0, largest=10.0, seeds=(3, 4))
    assert isinstance(sample.weight, float)
    assert isinstance(sample.seeds, tuple)


def test_only_a_field_without_an_upper_bound_takes_infinity():
    assert Sample(tau=math.inf).tau == math.inf
    with pytest.raises(ConfigError, match=r"--weight is inf; it must be a number, 0 to 1e\+06"):
        Sample(weight=math.inf)


@pytest.mark.parametrize(
    ("field", "value", "takes"),
    [
        ("n_images", 0, "a whole number, 1 to 2147483648"),
        ("n_images", 2**70, "a whole number"),
        ("n_images", 2.0, "a whole number"),
        ("n_images", True, "a whole number"),
        ("weight", math.nan, "a number, 0 to"),
        ("weight", 10**400, "a number, 0 to"),
        ("weight", "0.5", "a number"),
        ("tau", math.nan, "a number, 0 or more"),
        ("tau", -1e-300, "a number, 0 or more"),
        ("recipe", "Paper", "released or paper"),
        ("largest", 0, "a number, above 0 and at most 10 or left out"),
        ("seeds", (1, -1), "a list, each a whole number"),
        ("flag", 1, "true or false"),
    ],
)
def test_what_is_not_is_refused_by_name_value_and_range(field, value, takes):
    with pytest.raises(ConfigError) as refusal:
        Sample(**{field: value})

    assert str(refusal.value).startswith(f"--{field.replace('_', '-')} is {value!r:.60}; ")
    assert takes in str(refusal.value)


def test_every_field_can_be_described():
    assert {name: describe(kind) for name, kind in field_types(Sample).items()} == {
        "n_images": "a whole number, 1 to 2147483648",
        "weight": "a number, 0 to 1e+06",
        "tau": "a number, 0 or more",
        "recipe": "released or paper",
        "largest": "a number, above 0 and at most 10 or left out",
        "seeds": "a list, each a whole number, 0 to 9223372036854775807",
        "flag": "true or false",
    }


def test_what_the_paper_says_instead_stands_beside_the_field():
    @dataclass(frozen=True, kw_only=True)
    class Blur:
        sigma: Annotated[Weight, Paper(0.0)] = 4.0
        border: Annotated[Literal["reflect", "nearest"], Paper("nearest")] = "reflect"
        n_images: Count = 3

    assert paper_values(Blur) == {"sigma": 0.0, "border": "nearest"}
    assert paper_values(Sample) == {}
