"""What a field may hold, written beside it, and checked once: when a config is made.

    @dataclass(frozen=True, kw_only=True)
    class BlurConfig:
        sigma: Annotated[float, Meta(ge=0, le=1000)] = 4.0
        border: Literal["reflect", "nearest"] = "reflect"

        def __post_init__(self) -> None:
            check_fields(self)

A number has a lower and an upper bound, so NaN and infinity are refused unless the field says that
it takes them (`tau` of inf is the mean). The same types check a stored document when it is parsed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from spg_core.errors import ConfigError
from spg_core.nearest import near

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FieldType = object
"""What may stand as a field's type, for which Python has no type: `int`, `Count | None`, .."""
Count = Annotated[int, Meta(ge=1, le=2**31)]
"""A number of things, at least one."""
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""What torch's generators and NumPy's both take."""
Weight = Annotated[float, Meta(ge=0, le=1e6)]
"""A term's weight in a loss; 0 leaves it out."""
Rate = Annotated[float, Meta(gt=0, le=1e3)]
"""An optimiser's step size."""
Decay = Annotated[float, Meta(ge=0, lt=1)]
"""The share of an average that stays at each step."""
_TYPED = r"^[^\0\ud800-\udc7f\udd00-\udfff]+$"
"""What can be typed: of lone surrogates, only those that stand for bytes that are not UTF-8."""
Name = Annotated[str, Meta(pattern=_TYPED)]
"""What something is called; not empty."""
FilePath = Annotated[str, Meta(pattern=_TYPED, extra={"path": True})]
"""A file, a folder or a URL; `~` stands for the home folder."""
Device = Annotated[
    str, Meta(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N")
]
"""Where the maths runs."""

ARGUMENT = "argument"
"""Beside a field's type: given by its place, not by its name."""
REPEATED = "repeated"
"""Beside a field's type: a list whose option is typed once for each value."""


@dataclass(frozen=True)
class Paper:
    """Beside a field whose default is the released code's: what the paper's text says instead."""

    value: object


def paper_values(stage: "type[DataclassInstance]") -> dict[str, object]:
    """Give the fields of a dataclass whose value the paper states differently."""
    return {
        name: fact.value
        for name, kind in field_types(stage).items()
        for fact in getattr(kind, "__metadata__", ())
        if isinstance(fact, Paper)
    }


def check_fields(config: "DataclassInstance") -> None:
    """Refuse a config with a field outside its type or range; whole numbers become floats.

    Raises: ConfigError naming the option, what was given and what it takes.
    """
    for name, kind in field_types(type(config)).items():
        value = getattr(config, name)
        checked = check_value(name, kind, value)
        if checked is not value:
            object.__setattr__(config, name, checked)


def check_value(name: str, kind: FieldType, value: object, *, as_text: bool = False) -> object:
    """Give a value as its field holds it: of its type, in its range, `~` of a path expanded.

    Args:
        name: of the field.
        kind: its type.
        value: what was given.
        as_text: read numbers, true and false, and the parts of a list `1,2,3` from text.

    Raises: ConfigError naming the option, what was given and what it takes.
    """
    given = value
    if as_text and isinstance(value, str) and is_list(kind):
        given = [part.strip() for part in value.split(",")]
        if len(given) > 1 and not all(given):
            raise ConfigError(
                f"{option_name(name, kind)} is {value!r:.60}; one entry of this list is empty"
            )
    try:
        checked: object = msgspec.convert(given, kind, strict=not as_text)
    except (msgspec.ValidationError, OverflowError):
        raise ConfigError(
            f"{option_name(name, kind)} is {value!r:.60}; it must be {describe(kind)}"
            f"{near(value, words(kind))}"
        ) from None
    if not _is_path(kind):
        return checked
    if isinstance(checked, tuple):
        return tuple(_expanded(option_name(name, kind), one) for one in checked)
    return _expanded(option_name(name, kind), checked) if isinstance(checked, str) else checked


def option_name(name: str, kind: FieldType) -> str:
    """Give a field's name as it is typed: `--one-per-image`, `IMAGES`."""
    marks = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return name.upper() if ARGUMENT in marks else f"--{name.replace('_', '-')}"


def _expanded(name: str, path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ConfigError(f"{name} is {path!r}; no such home folder") from None


def is_list(kind: FieldType) -> bool:
    """Tell whether a field holds several values."""
    return any(get_origin(one) in (tuple, list) for one in alternatives(kind))


def words(kind: FieldType) -> list[str]:
    """Give the words a field takes, empty where it takes other things."""
    found = []
    for one in alternatives(kind):
        if get_origin(one) is Literal:
            found += [str(word) for word in get_args(one)]
        elif get_origin(one) in (tuple, list):
            found += words(get_args(one)[0])
    return found


def alternatives(kind: FieldType) -> list[FieldType]:
    """Give what a type may be, without its ranges: `int` and `None` of a `Count | None`."""
    match get_origin(kind):
        case origin if origin in (Union, UnionType):
            return [part for one in get_args(kind) for part in alternatives(one)]
        case origin if origin is Annotated:
            return alternatives(get_args(kind)[0])
    return [kind]


def _is_path(kind: FieldType) -> bool:
    """Tell whether a field holds a path, or several."""
    if get_origin(kind) in (Union, UnionType):
        return any(_is_path(one) for one in get_args(kind))
    if get_origin(kind) in (tuple, list):
        return _is_path(get_args(kind)[0])
    if get_origin(kind) is Annotated and is_list(kind):
        return _is_path(get_args(kind)[0])
    facts = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return any(isinstance(fact, Meta) and (fact.extra or {}).get("path") for fact in facts)


_known: dict[type, Mapping[str, FieldType]] = {}


def field_types(stage: "type[DataclassInstance]") -> Mapping[str, FieldType]:
    """Give the type of each field of a dataclass, with its range."""
    if stage not in _known:
        hints = get_type_hints(stage, include_extras=True)
        _known[stage] = {field.name: hints[field.name] for field in fields(stage) if field.init}
    return _known[stage]


def describe(kind: FieldType) -> str:
    """Say what a field takes: `1 to 64`, `released or paper`, `a number above 0, at most 1000`."""
    if kind is NoneType:
        return "left out"
    match get_origin(kind):
        case _ if kind in _PLAIN:
            return _PLAIN[kind]
        case origin if origin is Literal:
            return _either([str(word) for word in get_args(kind)])
        case origin if origin in (Union, UnionType):
            return _either([describe(one) for one in get_args(kind)])
        case origin if origin is Annotated:
            inner, *facts = get_args(kind)
            metas = [fact for fact in facts if isinstance(fact, Meta)]
            if inner is str:
                return bounds(kind) or ("a path" if _is_path(kind) else "text, not empty")
            return ", ".join([describe(inner), *filter(None, map(_range, metas))])
        case origin if origin in (tuple, list):
            return f"a list, each {describe(get_args(kind)[0])}"
    return str(getattr(kind, "__name__", kind))


def bounds(kind: FieldType) -> str:
    """Say the range alone, or what a text may be: `1 to 64`; empty where there is none."""
    match get_origin(kind):
        case origin if origin in (Union, UnionType):
            return " or ".join(filter(None, map(bounds, get_args(kind))))
        case origin if origin in (tuple, list):
            return bounds(get_args(kind)[0])
        case origin if origin is Annotated:
            metas = [fact for fact in get_args(kind)[1:] if isinstance(fact, Meta)]
            told = map(_range, metas)
            return ", ".join(filter(None, [bounds(get_args(kind)[0]), *told]))
    return ""


_PLAIN: dict[FieldType, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
}


def _range(meta: Meta) -> str:
    if meta.description:
        return meta.description
    lower = f"{_number(meta.ge)} or more" if meta.ge is not None else ""
    lower = f"above {_number(meta.gt)}" if meta.gt is not None else lower
    upper = f"at most {_number(meta.le)}" if meta.le is not None else ""
    upper = f"below {_number(meta.lt)}" if meta.lt is not None else upper
    if meta.ge is not None and meta.le is not None:
        return f"{_number(meta.ge)} to {_number(meta.le)}"
    return " and ".join(part for part in (lower, upper) if part)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) or not math.isfinite(value) else f"{value:g}"


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
