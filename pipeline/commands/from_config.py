"""A function of a store and configs becomes a typer command: its options are the configs' fields.

    app.command("fit-sae")(from_config(stages.fit_sae, shown.fit_sae))

The first makes something, the second, `show(made, as_json)`, prints it. What was typed is checked
against the fields before the function is called; what was not is left to the function's configs.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args

import typer

from pipeline.configs import StoreConfig
from pipeline.options import Option, fill, from_text, help_of, options_of
from spg_core.fields import ARGUMENT, REPEATED, alternatives, is_list, words

Made = TypeVar("Made")
_JSON = {"predict": "Print one JSON line an image."}


def from_config(
    function: Callable[..., Made], show: Callable[[Made, bool], None]
) -> Callable[..., None]:
    """Make the command that calls `function` with what was typed and prints by `show`."""
    options = options_of(function)
    takes_store = "store" in inspect.signature(function).parameters
    place = options_of(_of_store) if takes_store else []

    def command(ctx: typer.Context, **_: object) -> None:
        given = {
            one.name: from_text(one, ctx.params[one.name]) for one in options if _typed(ctx, one)
        }
        stores = [from_text(one, ctx.params[one.name]) for one in place]
        show(function(*stores, **fill(function, given)), bool(ctx.params["as_json"]))

    json_help = _JSON.get(function.__name__, "Print one JSON object on stdout.")
    told = [_parameter(one) for one in (*options, *place)]
    told += [_flag("as_json", "--json", json_help), _flag("debug", "--debug", _DEBUG)]
    ctx = inspect.Parameter("ctx", _KEYWORD, annotation=typer.Context)
    command.__signature__ = inspect.Signature([ctx, *told])  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in (ctx, *told)}
    command.__doc__, command.__name__ = function.__doc__, function.__name__
    return command


_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_DEBUG = "Show the traceback of an error."


def _of_store(config: StoreConfig) -> None: ...


def _typed(ctx: typer.Context, option: Option) -> bool:
    """Tell what a user typed, or set in the environment, from a default."""
    source = ctx.get_parameter_source(option.name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def _parameter(option: Option) -> inspect.Parameter:
    """Say an option in typer's words."""
    kind, flag = _annotation(option), f"--{option.name.replace('_', '-')}"
    default = inspect.Parameter.empty if option.is_required else _shown(option.default)
    told, known = help_of(option), words(option.kind)
    complete = (lambda: known) if known else None
    info: object
    if ARGUMENT in option.marks:
        info = typer.Argument(help=told, autocompletion=complete, metavar=option.name.upper())
    elif kind is bool:
        info = typer.Option(f"{flag}/--no-{flag[2:]}", help=told, autocompletion=complete)
    else:
        info = typer.Option(
            flag,
            help=told,
            autocompletion=complete,
            metavar=_metavar(option),
            envvar=_ENVIRONMENT.get(option.name),
        )
    whole: Any = Annotated[kind | None if default is None else kind, info]
    return inspect.Parameter(option.name, _KEYWORD, default=default, annotation=whole)


_ENVIRONMENT = {"store": "SPG_STORE"}


def _annotation(option: Option) -> type:
    """Give what typer has to know: a switch, a text, or texts; the fields' types do the rest."""
    if bool in alternatives(option.kind):
        return bool
    is_many = is_list(option.kind) and {ARGUMENT, REPEATED} & set(option.marks)
    return list[str] if is_many else str


def _shown(default: object) -> object:
    """Give a default as one would type it."""
    if not isinstance(default, tuple):
        return default
    return ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in default) or None


def _metavar(option: Option) -> str | None:
    """Give what stands after an option's name in its help."""
    if words(option.kind):
        return "|".join(words(option.kind)) + (",.." if is_list(option.kind) else "")
    for one in alternatives(option.kind):
        of_many = is_list(one) and not {ARGUMENT, REPEATED} & set(option.marks)
        single = alternatives(get_args(one)[0])[0] if is_list(one) else one
        if single in _METAVARS:
            return _METAVARS[single] + (",.." if of_many else "")
    return None


_METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT"}


def _flag(name: str, flag: str, help_text: str) -> inspect.Parameter:
    info = typer.Option(flag, help=help_text)
    return inspect.Parameter(name, _KEYWORD, default=False, annotation=Annotated[bool, info])
