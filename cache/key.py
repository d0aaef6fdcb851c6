"""The cache key: 16 hex digits over everything that changes a token, and nothing else.

What a key covers is a JSON object (`covers`). It holds no path, host, user or time, so two people
who extract the same thing get the same key.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from spg_core.errors import StoreError

KEY_DIGITS = 16

_MAX_SHOWN = 80


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of a value: keys sorted, no spaces, ASCII, no NaN.

    Raises:
        StoreError: the value is not plain JSON.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"not plain JSON, so it has no digest: {error}") from error
    return text.encode("ascii")


def cache_key(covers: Mapping[str, object]) -> str:
    """Return the key of what `covers` describes: the first 16 hex digits of a SHA-256."""
    return hashlib.sha256(canonical_json(dict(covers))).hexdigest()[:KEY_DIGITS]


def is_key(name: str) -> bool:
    """Tell whether a name has the form of a cache's key."""
    return len(name) == KEY_DIGITS and set(name) <= set("0123456789abcdef")


def images_digest(image_ids: Sequence[str]) -> str:
    """Return the digest of an ordered list of image digests (each 64 hex digits of SHA-256).

    Raises:
        StoreError: an id is not 64 lower-case hex digits.
    """
    digest = hashlib.sha256()
    for row, image_id in enumerate(image_ids):
        if len(image_id) != 64 or not set(image_id) <= set("0123456789abcdef"):
            raise StoreError(f"image id {image_id!r} of row {row} is not a SHA-256 in hex")
        digest.update(f"{image_id}\n".encode("ascii"))
    return digest.hexdigest()


def explain_difference(covers_a: Mapping[str, object], covers_b: Mapping[str, object]) -> list[str]:
    """Return one sentence for each thing in which two caches differ; empty when nothing does."""
    a, b = dict(_flatten(covers_a)), dict(_flatten(covers_b))
    sentences = []
    for name in sorted(a.keys() | b.keys()):
        if name not in b:
            sentences.append(f"only the first states {name} ({_show(a[name])})")
        elif name not in a:
            sentences.append(f"only the second states {name} ({_show(b[name])})")
        elif canonical_json(a[name]) != canonical_json(b[name]):
            sentences.append(f"{name} is {_show(a[name])} in one and {_show(b[name])} in the other")
    return sentences


def tell_apart(covers: Sequence[Mapping[str, object]]) -> list[str]:
    """Say of each of several caches, in a few words, what it has that another has not.

    `layer 5, height 448`; names of the backbone's part stand without it, digests by their start.
    """
    flat = [dict(_flatten(one)) for one in covers]
    names = sorted({name for one in flat for name in one})
    differing = [name for name in names if len({canonical_json(one.get(name)) for one in flat}) > 1]
    return [", ".join(_words(name, one.get(name)) for name in differing) for one in flat]


def _words(name: str, value: object) -> str:
    *_, last = name.split(".")
    match last, value:
        case "layer", None:
            return "the last layer"
        case "sha256" | "weights_sha256", str(digest):
            return f"{name.removeprefix('backbone.').replace('.', ' ')} {digest[:8]}"
    return f"{name.removeprefix('backbone.').replace('.', ' ')} {_show(value)}"


def _flatten(value: Mapping[str, object], path: str = "") -> Iterator[tuple[str, object]]:
    for name, inner in value.items():
        full = f"{path}.{name}" if path else name
        if isinstance(inner, Mapping) and inner:
            yield from _flatten(inner, full)
        else:
            yield full, inner


def _show(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
