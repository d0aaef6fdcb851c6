"""Every field of a stage's config takes what its declaration says, and nothing else."""

import dataclasses
import math

import pytest

from pipeline.configs import FitGuidesConfig, FitSaeConfig
from spg_core.errors import ConfigError

STAGES = (FitSaeConfig, FitGuidesConfig)
NUMBERS = [
    (stage, field.name)
    for stage in STAGES
    for field in dataclasses.fields(stage)
    if type(field.default) in (int, float)
]
WORDS = [
    (stage, field.name)
    for stage in STAGES
    for field in dataclasses.fields(stage)
    if type(field.default) is str and field.name != "device"
]


@pytest.mark.parametrize("value", [-1, -0.1, 2**64, 1e300, math.nan, math.inf, "many", None, True])
@pytest.mark.parametrize(("stage", "name"), NUMBERS)
def test_a_number_out_of_range_is_refused_by_the_name_of_its_option(stage, name, value):
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is .*; it must be a "):
        stage(**{name: value})


@pytest.mark.parametrize("value", ["many", "", 0, None, "RELEASED"])
@pytest.mark.parametrize(("stage", "name"), WORDS)
def test_an_unknown_word_is_refused_with_the_known_ones(stage, name, value):
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is .*; it must be .* or "):
        stage(**{name: value})


@pytest.mark.parametrize("stage", STAGES)
def test_zero_is_taken_where_it_means_something(stage):
    taken = set()
    for _, name in (pair for pair in NUMBERS if pair[0] is stage):
        try:
            stage(**{name: 0})
            taken.add(name)
        except ConfigError:
            pass

    assert (
        taken
        == {
            FitSaeConfig: {"l1", "auxk", "auxk_weight", "dead_threshold", "beta1", "beta2", "seed"},
            FitGuidesConfig: {"beta", "lambda_dice", "ema", "beta1", "beta2", "seed"},
        }[stage]
    )
