"""Words that people use for normal parts, for defects, for masks and for splits.

Compared in lower case and without `-`, `_`, `.` and spaces: `Defect-Free`, `defect_free` and
`defectfree` are one word.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

NORMAL_WORDS: Final = frozenset(
    {
        "good",
        "ok",
        "okay",
        "normal",
        "no",
        "none",
        "pass",
        "passed",
        "negative",
        "free",
        "defectfree",
        "nondefective",
        "nodefect",
        "nodefects",
        "anomalyfree",
        "nonanomalous",
        "goodtest",
        "normaltest",
    }
)
ANOMALOUS_WORDS: Final = frozenset(
    {
        "bad",
        "ungood",
        "notgood",
        "ko",
        "nok",
        "ng",
        "yes",
        "fail",
        "failed",
        "positive",
        "defect",
        "defective",
        "faulty",
        "anomaly",
        "anomalous",
        "abnormal",
    }
)
MASK_WORDS: Final = frozenset(
    {
        "mask",
        "masks",
        "gt",
        "gts",
        "groundtruth",
        "groundtruths",
        "annotation",
        "annotations",
        "label",
        "labels",
    }
)
"""Folders of masks. `label` and `annotation` only as the whole name: a label can be missing."""

_MASK_AT_AN_END: Final = re.compile(
    r"^(masks?|gts?|ground[-_ ]?truths?)[-_ .]|[-_ .](masks?|gts?|ground[-_ ]?truths?)$", re.I
)

MASK_SUFFIXES: Final = ("_mask", "_label", "_gt", "_seg", "_annotation", "_groundtruth")
"""What a mask's stem may have after its image's, in any case and also with `-` or `.`."""

MASK_PREFIXES: Final = ("mask", "gt", "label")
"""What a mask's stem may have before its image's, likewise."""

SPLIT_OF: Final = {"train": "train", "test": "test", "validation": "train"}
"""Splits by their words: what is held out to validate shows normal parts, as training does."""


def composed(name: str) -> str:
    """Give a name as names are compared: a Mac writes `ö` as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def plain(word: str) -> str:
    """Give a word as words are compared."""
    return re.sub(r"[-_ .]", "", composed(word)).casefold()


def is_normal(name: str, instead: Iterable[str] = ()) -> bool:
    """Tell whether a folder or label says "no defect"; the user's own words replace ours."""
    words = {plain(word) for word in instead} or NORMAL_WORDS
    return plain(name) in words


def without_mask_word(folder: str) -> str | None:
    """Give what is left of the name of a folder of masks, or None if it is no such folder.

    `mask` -> ``, `crack_mask` -> `crack`, `masked` -> None.
    """
    rest = folder
    while plain(rest) not in MASK_WORDS:
        before, rest = rest, _MASK_AT_AN_END.sub("", rest)
        if rest == before:
            return None if rest == folder else rest
    return ""


def mask_stems(stem: str) -> list[str]:
    """Give the stems an image may have whose mask has this stem: `1_mask` -> `1_mask`, `1`."""
    stems = [stem]
    for suffix in MASK_SUFFIXES:
        head, tail = stem[: -len(suffix)], stem[-len(suffix) :]
        if head and tail[0] in "-_. " and tail[1:].casefold() == suffix[1:]:
            stems.append(head)
    for prefix in MASK_PREFIXES:
        head, tail = stem[: len(prefix)], stem[len(prefix) :]
        if head.casefold() == prefix and tail[:1] in ("-", "_", ".", " ") and tail[1:]:
            stems.append(tail[1:])
    return stems


def label_of(value: object) -> int | None:
    """Read a label as lists write it: 0, 1.0, "1", true, "good", "Abnormal", "LabelName.NORMAL".

    Returns:
        0 normal, 1 anomalous, None if it says neither.
    """
    if isinstance(value, bool | int | float):
        return int(value) if value in (0, 1) else None
    if not isinstance(value, str):
        return None
    word = plain(value.rpartition(".")[2]) if value[:1].isalpha() else value.strip()
    if word in ("true", "false"):
        return int(word == "true")
    if word in NORMAL_WORDS:
        return 0
    if word in ANOMALOUS_WORDS:
        return 1
    try:
        return {0.0: 0, 1.0: 1}.get(float(word))
    except ValueError:
        return None
