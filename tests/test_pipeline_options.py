"""Every option of every command, through the command itself: a wrong value is one line and 2."""

import pytest
import typer

from pipeline import stages
from pipeline.cli import main
from pipeline.commands import cache
from pipeline.commands.app import app
from pipeline.options import Option, fill, from_text, options_of
from pipeline.prediction import stages as judging
from pipeline.registry import stages as keeping
from spg_core.errors import ConfigError
from spg_core.fields import ARGUMENT, REPEATED, alternatives, is_list, words
from tests.test_pipeline_configs import REQUIRED

BUILT = typer.main.get_command(app)
COMMANDS = BUILT.commands  # type: ignore[attr-defined]


def function_of(name):
    place = name.removeprefix("cache ").replace("-", "_")
    if name.startswith("cache "):
        return getattr(cache, place)
    return next(getattr(room, place) for room in (stages, judging, keeping) if hasattr(room, place))


NAMES = [*COMMANDS, *(f"cache {name}" for name in COMMANDS["cache"].commands)]
FUNCTIONS = {name: function_of(name) for name in NAMES if name != "cache"}
OPTIONS = [
    (name, option) for name, function in FUNCTIONS.items() for option in options_of(function)
]
IDS = [f"{name} --{option.name}" for name, option in OPTIONS]
WRONG = ["0", "-1", "1000000000", "1e9", "18446744073709551616", "1e300", "nan", "inf", "-inf"]
WRONG += ["word", "", ",", "1,word", "1,-1", "0.5.5", "0x10", "ema,raw"]


@pytest.fixture(autouse=True)
def built_once(monkeypatch):
    monkeypatch.setattr("pipeline.commands.app.app", BUILT)


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capsys.readouterr()
    return left.value.code, out, err


def words_of(name, option, value):
    """Give a command line that is right but for one value."""
    given = name.split()
    for other in options_of(FUNCTIONS[name]):
        if other.name == option.name or other.name not in REQUIRED:
            continue
        if other.name in [one.name for one in required(name)]:
            given += spoken(other, REQUIRED[other.name])
    return [*given, *spoken(option, value)]


def required(name):
    return [one for one in options_of(FUNCTIONS[name]) if one.is_required]


def spoken(option, value):
    value = value[0] if isinstance(value, tuple) else value
    return [value] if ARGUMENT in option.marks else [f"--{option.name.replace('_', '-')}={value}"]


def is_refused(option: Option, value):
    many = {ARGUMENT, REPEATED} & set(option.marks) and is_list(option.kind)
    try:
        from_text(option, [value] if many else value)
    except ConfigError:
        return True
    return False


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=IDS)
def test_a_wrong_value_is_one_line_and_2_and_nothing_is_started(
    name, option, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused = [value for value in WRONG if is_refused(option, value)]
    if bool in alternatives(option.kind):
        refused = ["word"]

    assert refused, "an option that takes whatever is typed"
    for value in refused:
        code, out, err = run(capsys, *words_of(name, option, value))
        assert (code, out, err.count("\n")) == (2, "", 1), (value, err)
        assert err.startswith("error: ")
        assert option.name.replace("_", "-") in err.lower() or ARGUMENT in option.marks
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "option"), [one for one in OPTIONS if words(one[1].kind)])
def test_a_word_mistyped_is_answered_by_the_nearest(name, option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    word = words(option.kind)[0]

    _, _, err = run(capsys, *words_of(name, option, word + word[-1]))

    assert f"did you mean {word!r}?" in err


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_must_be_given_is_asked_for(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option in required(name):
        given = [word for word in words_of(name, option, "x") if word not in spoken(option, "x")]

        code, _, err = run(capsys, *given)

        assert (code, err.count("\n")) == (2, 1)
        assert option.name in err.lower() or ARGUMENT in option.marks


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if options_of(FUNCTIONS[name])])
def test_an_option_that_is_none_is_refused_with_the_nearest(name):
    function = FUNCTIONS[name]
    known = options_of(function)[-1].name

    with pytest.raises(ConfigError, match=f"has no option '{known}x'; did you mean '{known}'?"):
        fill(function, {f"{known}x": 1})


def test_the_empty_store_is_refused_by_option_and_environment(capsys, monkeypatch):
    code, _, err = run(capsys, "table", "--scores", "latest", "--store=")
    assert (code, err) == (2, "error: --store is ''; it must be a path\n")

    monkeypatch.setenv("SPG_STORE", "~nobody-of-that-name/store")
    code, _, err = run(capsys, "table", "--scores", "latest")
    assert (code, "no such home folder" in err) == (2, True)


def test_two_configs_of_a_command_share_no_name():
    for name, function in FUNCTIONS.items():
        known = [option.name for option in options_of(function)]
        assert len(set(known)) == len(known), name
