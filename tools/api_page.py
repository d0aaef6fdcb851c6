"""The page of the public interface, from `spg_pipe` itself."""

import inspect
from typing import Any

import spg_pipe
from pipeline.options import Option, help_of, options_of
from spg_core.fields import words

HEAD = """# Python

Written by `make docs` from `spg_pipe` itself; `make check` fails where it is out of date.

```python
import spg_pipe as spg

sae = spg.fit_sae("spg-store", dataset="visa", backbone="dinov3", k=16)
guides = spg.fit_guides("spg-store", sae=sae.id)
scores = spg.score("spg-store", guides=guides.id, dataset="mvtec")
```

These names stay; everything else may move. A store is a folder, a URL such as
`s3://bucket/prefix`, or one that `open_store` gave. The stages take the options of their commands
by name, with the same defaults and ranges ([cli.md](cli.md)); a list may be one value. What
cannot be is a `ConfigError`, like every error a user can cause an `SpgError`.
"""


def api_page() -> str:
    """Give the page: each name with its signature, what it does and what it takes."""
    return (
        "\n".join([HEAD, *(line for name in _names() for line in _section(name))]).rstrip() + "\n"
    )


def _names() -> list[str]:
    return [name for name in spg_pipe.__all__ if not name.startswith("_")]


def _section(name: str) -> list[str]:
    found = getattr(spg_pipe, name)
    stage = getattr(found, "__wrapped__", None)
    if stage is None:
        text = _plain_text(inspect.getdoc(found) or "")
        return [f"## {name}", "", *_signature(name, found), *text, ""]
    first = (inspect.getdoc(stage) or "").splitlines()
    required = [one.name for one in options_of(stage) if one.is_required]
    call = ", ".join(["store", *(f"{one}=.." for one in required)])
    rows = [_row(one) for one in options_of(stage)]
    return [
        *(f"## {name}", "", f"`{name}({call}, ..)`", "", *first, ""),
        *("| option | default | meaning |", "|---|---|---|", *rows, ""),
    ]


def _signature(name: str, found: Any) -> list[str]:
    if inspect.isclass(found):
        return []
    words = [str(one).split(":")[0].split(" =")[0] for one in inspect.signature(found).parameters]
    return [f"`{name}({', '.join(words)})`", ""]


def _plain_text(text: str) -> list[str]:
    """Give a docstring with its sections as lists."""
    lines = []
    for line in text.splitlines():
        is_item = line.startswith("    ") and not line.startswith("     ")
        lines.append(f"- {line.strip()}" if is_item else line.strip())
    return lines


def _row(option: Option) -> str:
    default = "required" if option.is_required else _default(option.default)
    taken = " \\| ".join(words(option.kind))
    text = f"{help_of(option)} ({taken})" if taken else help_of(option)
    return f"| `{option.name}` | {default} | {text} |"


def _default(value: Any) -> str:
    return "" if value is None or value == () else f"`{value!r}`"
