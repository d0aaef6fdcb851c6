"""Find the controls of some scores: the same SAE, target and scoring over another dictionary."""

from typing import Any

from cache.objects import Objects
from pipeline.artifacts import Artifact, list_artifacts, load_artifact
from pipeline.report.data import MetricRow, metric_rows
from spg_core.errors import NotInStore


def control_rows(
    store: Objects, document: dict[str, Any], guides: Artifact
) -> dict[str, MetricRow]:
    """Give the mean metrics of every finished control, by the name of its dictionary.

    Guides of one dictionary that differ otherwise (in seed, say) are named by their id too.

    Args:
        store: where scores and guides are.
        document: the content of `metrics.json` of the scores that are reported.
        guides: the guides that made them.
    """
    found: dict[str, dict[str, MetricRow]] = {}
    for identifier in list_artifacts(store, "scores"):
        other = load_artifact(store, "scores", identifier).document
        if not _same_request(document, other) or other["parents"]["guides"] == guides.id:
            continue
        try:
            others = load_artifact(store, "guides", other["parents"]["guides"]).document
        except NotInStore:
            continue  # its guides were deleted, so nobody can say what it was a control of
        kind = dictionary_kind(others)
        same_sae = others["parents"]["sae"] == guides.document["parents"]["sae"]
        if same_sae and kind != dictionary_kind(guides.document):
            found.setdefault(kind, {})[others["id"]] = metric_rows(other)[0]
    return {
        kind if len(rows) == 1 else f"{kind} ({identifier})": row
        for kind, rows in found.items()
        for identifier, row in rows.items()
    }


def dictionary_kind(guides: dict[str, Any]) -> str:
    """Give `sae`, `pca`, `random` or `none` from the document of some guides."""
    return str(guides["config"].get("dictionary", "sae"))


def _same_request(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two scores are of one cache and scored alike."""
    settings = [
        {name: value for name, value in each["config"].items() if name != "device"}
        for each in (one, other)
    ]
    keys = [each["parents"]["cache"]["key"] for each in (one, other)]
    return settings[0] == settings[1] and keys[0] == keys[1]
