"""Read a stored document: strict JSON, then field by field into its frozen type.

A document is foreign input. What is refused is refused by the name of the file and of the field.
Fields that are not known are passed over, so that a later version can say more; but not in a
config, where one changes what the numbers mean. Options that an earlier version did not have take
their defaults, which are what it did.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar, cast, get_args, get_origin

import msgspec

from pipeline import __version__
from spg_core.errors import ConfigError, CorruptStore, SpgError
from spg_core.fields import FieldType, describe, field_types

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT = 2
"""Of every document here; 1 did not keep it in the file of the numbers, too."""

LARGEST_BYTES = 64 << 20
"""No document of ours is larger; a sweep of 10,000 failed points has 5 MB."""

Json = dict[str, object]


class Checked(Protocol):
    """A frozen dataclass that can tell whether it contradicts itself."""

    def check(self) -> None:
        """Raises: ArtifactError naming a field."""


D = TypeVar("D", bound=Checked)
R = TypeVar("R", bound="DataclassInstance")


class OtherFormat(CorruptStore):
    """A document of another version of spg-pipe: not damaged, so not to be written over."""


def read_document(data: bytes, where: str, kind: str, what: str) -> Json:
    """Read strict JSON that says it is of a kind, and in the format that this version reads.

    Raises: CorruptStore.
    """
    raw = read_json(data, where)
    if not isinstance(raw, dict) or raw.get("kind") != kind:
        raise CorruptStore(f"{where} does not describe {what}")
    if type(raw.get("format")) is not int or raw["format"] != FORMAT:
        raise OtherFormat(
            f"{where} has format {raw.get('format')!r:.60}; this version reads {FORMAT}"
        )
    return raw


def read_json(data: bytes, where: str) -> object:
    """Read strict JSON in UTF-8: each key once, finite numbers of a sane length.

    Raises: CorruptStore.
    """
    try:
        found: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_finite,
        )
        # half of a surrogate pair is no text
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise CorruptStore(f"{where} is not JSON: {error}") from None
    return found


def _unique(pairs: list[tuple[str, object]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r:.60} is there twice")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.20} is out of range")
    return number


def parse_document(raw: Json, kind: type[D], where: str) -> D:
    """Give the document that `raw` is. Raises: CorruptStore naming file and field."""
    versions = raw.get("versions")
    own = isinstance(versions, dict) and versions.get("spg-pipe") == __version__
    try:
        document = cast("D", _value(kind, raw, "", complete=own))
        document.check()
    except SpgError as error:
        raise CorruptStore(f"{where}: {error}") from None
    return document


def _value(kind: FieldType, raw: object, path: str, *, complete: bool) -> object:
    """Give what `raw` is as a `kind`. Raises: ConfigError naming the path to the field."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _record(kind, _object(raw, path), path, complete)
    if get_origin(kind) is dict and dataclasses.is_dataclass(get_args(kind)[1]):
        names, inner = get_args(kind)
        return {
            _value(names, name, f"{path} {name!r:.60}", complete=complete): _value(
                inner, value, f"{path}.{name}", complete=complete
            )
            for name, value in _object(raw, path).items()
        }
    if raw == "inf" and _takes_infinity(kind):
        return math.inf
    try:
        return msgspec.convert(raw, kind)
    except (msgspec.ValidationError, OverflowError):
        raise ConfigError(f"{path} is {raw!r:.60}; it must be {describe(kind)}") from None


def _record(kind: type[R], raw: Json, path: str, complete: bool) -> R:
    types, make = field_types(kind), cast("Callable[..., R]", kind)
    given: Json = {}
    dot = f"{path}." if path else ""
    if path in ("config", "varied"):
        for name in sorted(raw.keys() - types.keys()):
            raise ConfigError(f"{dot}{name} is an option that this version does not know")
    for one in dataclasses.fields(kind):
        if one.name in raw:
            inner = types[one.name]
            given[one.name] = _value(inner, raw[one.name], f"{dot}{one.name}", complete=complete)
        elif one.default is dataclasses.MISSING or (complete and not one.name.endswith("_reason")):
            raise ConfigError(f"{dot}{one.name} is missing")
    try:
        return make(**given)
    except ConfigError as error:
        raise ConfigError(f"{path or 'it'}: {error}") from None


def _object(raw: object, path: str) -> Json:
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} is {raw!r:.60}; it must be an object")
    return raw


def _takes_infinity(kind: FieldType) -> bool:
    try:
        return bool(msgspec.convert(math.inf, kind) == math.inf)
    except msgspec.ValidationError:
        return False


def to_json(document: object) -> Json:
    """Give a document or config as plain JSON; infinity as `inf`, no reason where there is none.

    `parse_document` gives an equal one again.
    """
    return cast("Json", _plain(msgspec.to_builtins(document)))


def _plain(value: object) -> object:
    match value:
        case Mapping():
            return {
                name: _plain(inner)
                for name, inner in value.items()
                if not (inner is None and name.endswith("_reason"))
            }
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case float() if math.isinf(value):
            return str(value)
    return value
