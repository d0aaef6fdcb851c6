"""Find the controls of some scores: the same SAE, target and scoring over another dictionary."""

import re
from collections.abc import Iterator

from cache.objects import Objects
from pipeline.artifacts import Artifact, list_artifacts, load_document
from pipeline.artifacts.documents import GuidesDocument, ScoresDocument
from pipeline.report.data import MetricRow, metric_row
from pipeline.terminal.progress import say
from spg_core.errors import CorruptStore, NotInStore


def control_rows(
    store: Objects, document: ScoresDocument, guides: Artifact[GuidesDocument]
) -> dict[str, MetricRow]:
    """Give the mean metrics of every finished control, by the name of its dictionary.

    Guides of one dictionary that differ otherwise (in seed, say) are named by their id too. What
    cannot be read is named and left out.

    Args:
        store: where scores and guides are.
        document: the scores that are reported.
        guides: the guides that made them.
    """
    found: dict[str, dict[str, MetricRow]] = {}
    for identifier in _named_alike(store, document, guides):
        try:
            other = load_document(store, ScoresDocument, identifier)
            if not _same_request(document, other):
                continue
            if other.parents.guides is None:
                continue
            others = load_document(store, GuidesDocument, other.parents.guides)
        except NotInStore:
            continue  # its guides were deleted, so nobody can say what it was a control of
        except CorruptStore as error:
            say(f"the report leaves out a control: {error}")
            continue
        kind = others.config.dictionary
        same_sae = others.parents.sae == guides.document.parents.sae
        if same_sae and kind != guides.document.config.dictionary:
            found.setdefault(kind, {})[others.id] = metric_row(other.mean)
    return {
        kind if len(rows) == 1 else f"{kind} ({identifier})": row
        for kind, rows in found.items()
        for identifier, row in rows.items()
    }


def _named_alike(
    store: Objects, document: ScoresDocument, guides: Artifact[GuidesDocument]
) -> Iterator[str]:
    """Yield the ids of scores that may be controls, by their names: others need not be read."""
    if guides.document.parents.sae is None:
        return
    stem = guides.document.parents.sae.rpartition("-")[0]
    target = document.parents.cache.dataset
    start = re.escape(f"{target}-from-{stem}")
    named = re.compile(start + r"(?:-(pca|random|none))?-[0-9a-f]{8}")
    for identifier in list_artifacts(store, "scores"):
        match = named.fullmatch(identifier)
        if match and (match[1] or "sae") != guides.document.config.dictionary:
            yield identifier


def _same_request(one: ScoresDocument, other: ScoresDocument) -> bool:
    """Tell whether two scores are of one cache and scored alike."""
    settings = [vars(each.config) | {"device": ""} for each in (one, other)]
    return settings[0] == settings[1] and one.parents.cache.key == other.parents.cache.key
