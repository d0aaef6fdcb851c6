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
from dataclasses import fields
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from spg_core.errors import ConfigError

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


def check_fields(config: Any) -> None:
    """Refuse a config with a field outside its type or range; whole numbers become floats.

    Raises: ConfigError naming the option, what was given and what it takes.
    """
    for name, kind in field_types(type(config)).items():
        value = getattr(config, name)
        try:
            checked = msgspec.convert(value, kind)
        except (msgspec.ValidationError, OverflowError):
            raise ConfigError(
                f"--{name.replace('_', '-')} is {value!r:.60}; it must be {describe(kind)}"
            ) from None
        if type(checked) is not type(value):
            object.__setattr__(config, name, checked)


def field_types(stage: Any) -> Mapping[str, Any]:
    """Give the type of each field of a dataclass, with its range."""
    hints = get_type_hints(stage, include_extras=True)
    return {field.name: hints[field.name] for field in fields(stage) if field.init}


def describe(kind: Any) -> str:
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
            bounds = [_range(fact) for fact in facts if isinstance(fact, Meta)]
            return ", ".join([describe(inner), *filter(None, bounds)])
        case origin if origin in (tuple, list):
            return f"a list, each {describe(get_args(kind)[0])}"
    return str(getattr(kind, "__name__", kind))


_PLAIN: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
}


def _range(meta: Meta) -> str:
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
