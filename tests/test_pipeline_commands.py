"""The commands and the configs say the same; every option is explained; errors are one line."""

import dataclasses
import json
import subprocess
import sys

import pytest
import typer

from pipeline.cli import app
from pipeline.configs import (
    ExtractConfig,
    FitGuidesConfig,
    FitSaeConfig,
    ScoreConfig,
)
from pipeline.options import field_help
from pipeline.recipes import from_recipe
from spg_core.errors import ConfigError
from spg_core.fields import field_types, is_list

STAGES = {
    "extract": ExtractConfig,
    "fit-sae": FitSaeConfig,
    "fit-guides": FitGuidesConfig,
    "score": ScoreConfig,
}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def leaves(commands, path=""):
    for name, command in commands.items():
        inner = getattr(command, "commands", None)
        if inner:
            yield from leaves(inner, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize("name", STAGES)
def test_a_command_lists_every_field_of_its_config_with_its_default(name):
    parameters = {parameter.name: parameter for parameter in COMMANDS[name].params}
    kinds = field_types(STAGES[name])

    for field in dataclasses.fields(STAGES[name]):
        assert field.name in parameters, field.name
        if field.default is dataclasses.MISSING:
            assert parameters[field.name].required, field.name
        else:
            default = field.default or None if is_list(kinds[field.name]) else field.default
            assert parameters[field.name].default == default, field.name


@pytest.mark.parametrize(("name", "command"), list(leaves(COMMANDS)), ids=str)
def test_every_command_and_option_is_explained(name, command):
    assert command.help, name
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("stage", STAGES.values())
def test_every_config_field_has_a_docstring(stage):
    assert {field.name for field in dataclasses.fields(stage)} == set(field_help(stage))


def test_a_recipe_changes_what_is_not_given_and_only_that():
    config = from_recipe(FitSaeConfig, "paper", {"beta1": 0.7})

    assert (config.recipe, config.beta1, config.loss) == ("paper", 0.7, "sum")
    assert from_recipe(FitSaeConfig, "released", {}) == FitSaeConfig()


def test_the_paper_differs_where_its_text_does():
    paper = {stage: from_recipe(stage, "paper", {}) for stage in (FitSaeConfig, FitGuidesConfig)}

    assert differences(paper[FitSaeConfig]) == {
        "recipe": "paper",
        "loss": "sum",
        "auxk_weight": 0.0,
        "unit_norm": False,
        "tied_init": False,
        "clamp": False,
        "beta1": 0.9,
    }
    assert differences(paper[FitGuidesConfig]) == {
        "recipe": "paper",
        "images_per_step": 16,
        "beta": 0.01,
        "dice": "anomaly",
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "mask_dead": False,
    }
    assert differences(from_recipe(ScoreConfig, "paper", {})) == {"sigma": 0.0}


def differences(config):
    released = dataclasses.asdict(type(config)())
    return {name: value for name, value in vars(config).items() if value != released[name]}


def test_an_unknown_recipe_or_field_is_refused():
    with pytest.raises(ConfigError, match="'released' or 'paper', got 'mine'"):
        from_recipe(FitSaeConfig, "mine", {})
    with pytest.raises(ConfigError, match="FitSaeConfig has no field widht"):
        from_recipe(FitSaeConfig, "paper", {"widht": 3})


def test_help_does_not_import_torch():
    code = (
        "import sys, pipeline.commands.app\n"
        "heavy = {'torch', 'zarr', 'numpy', 'pyarrow', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_user_error_is_one_line_on_stderr_and_exit_code_1(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, said in (("empty", "no SAE 'latest'"), ("none", "no store at")):
        result = run("fit-guides", "--sae", "latest", "--store", str(tmp_path / folder))

        assert result.returncode == 1
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert said in result.stderr
        assert folder == "none" or "fit-sae" in result.stderr
    assert not (tmp_path / "none").exists()


def test_debug_shows_the_traceback(tmp_path):
    result = run("fit-guides", "--sae", "latest", "--store", str(tmp_path), "--debug")

    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "--guides", "x"],
        ["fit-sae", "--dataset", "a", "--backbone", "b", "--width", "many"],
        ["fit-sae", "--dataset", "a", "--backbone", "b", "--widht", "8"],
        ["fit-sae", "a", "--dataset", "a", "--backbone", "b"],
        ["extract", "--backbone", "gabor", "--dataset", "visaa", "--root", "."],
        ["extract", "--backbone", "gabor", "--dataset", "visa", "--root", ".", "--store", ""],
        ["nonsense"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments):
    result = run(*arguments)

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["fitsae"], "'fit-sae'"),
        (["extract", "--dataset", "viza", "--backbone", "gabor", "--root", "."], "'visa'"),
        (["fit-sae", "--widht", "8"], "--width"),
    ],
)
def test_a_name_mistyped_is_answered_by_the_nearest(arguments, meant):
    said = run(*arguments).stderr

    assert meant in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_printed(option):
    result = run(option)

    assert result.returncode == 0
    assert result.stdout.strip().count(".") == 2


def test_json_errors_leave_stdout_empty(tmp_path):
    result = run("score", "--guides", "g", "--dataset", "d", "--json", "--store", str(tmp_path))

    assert result.returncode == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(result.stdout)


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    for out, reason in (
        ("t.md", "a .csv, .tex or .parquet file"),
        ("none/t.csv", "No such file or directory"),
    ):
        result = run("table", "--scores", "x", "--out", out, "--store", "none", cwd=tmp_path)

        assert reason in result.stderr
        assert result.stderr.count("\n") == 1
