"""Scores of several methods on one target, category by category; seeds as mean and spread."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cache.objects import Objects
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.scoring.methods import Method, labels, method_of
from pipeline.tables.metrics import METRICS
from pipeline.tables.of_metrics import Row, Table
from pipeline.words import dataset_words
from spg_core.errors import ArtifactError


@dataclass(frozen=True)
class Group:
    """The scores of one method by one or several seeds."""

    label: str
    members: Sequence[ScoresDocument]

    def row(self, category: str | None) -> Row:
        """Give the row of a category, or of the mean over them, each in a section of its own."""
        every = [one.mean if category is None else one.categories[category] for one in self.members]
        by_name = {name: [one.values[name] for one in every] for name in METRICS}
        return Row(
            section=category or "mean",
            kind="mean" if category is None else "category",
            name=self.label,
            values={name: _of_all(statistics.fmean, found) for name, found in by_name.items()},
            spread={name: _of_all(statistics.stdev, found) for name, found in by_name.items()}
            if len(every) > 1
            else {},
        )


def side_by_side(store: Objects, scores: Sequence[Artifact[ScoresDocument]]) -> Table:
    """Lay several scores of one target below each other in each category, the best marked.

    Raises: ArtifactError where one is named twice, or they are of other targets or of other
        definitions of AUPRO; CorruptStore.
    """
    documents = [one.document for one in scores]
    _require_each_once(documents)
    _require_alike(documents)
    groups = group_seeds(store, documents)
    rows = []
    for category in (*documents[0].categories, None):
        rows += mark_best([one.row(category) for one in groups])
    notes = [f"in %; AUPRO {documents[0].aupro}; * the best of its category"]
    caption = (
        f"Methods on {dataset_words(documents[0].parents.cache.dataset)}: metrics in %, AUPRO "
        f"{documents[0].aupro}; the best of each category in bold."
    )
    return Table(
        metrics=list(METRICS),
        rows=rows,
        notes=[*notes, *seed_note(groups)],
        of="method",
        caption=caption,
    )


def seed_note(groups: Sequence[Group]) -> list[str]:
    """Say what the spread is, where a group has one."""
    told = [f"{one.label}: {len(one.members)}" for one in groups if len(one.members) > 1]
    return [f"± is the standard deviation over seeds ({', '.join(told)})"] if told else []


def group_seeds(store: Objects, documents: Sequence[ScoresDocument]) -> list[Group]:
    """Put scores together that differ in seeds alone, in the order of the first of each."""
    together: list[tuple[Method, list[ScoresDocument]]] = []
    for document in documents:
        method = method_of(store, document)
        for known, members in together:
            if (known.kind, known.facts) == (method.kind, method.facts):
                members.append(document)
                break
        else:
            together.append((method, [document]))
    named = labels([method for method, _ in together])
    ambiguous = {one for one in named if named.count(one) > 1}
    return [
        Group(f"{label} ({members[0].id})" if label in ambiguous else label, members)
        for label, (_, members) in zip(named, together, strict=True)
    ]


def mark_best(rows: Sequence[Row]) -> list[Row]:
    """Mark the best of some rows in each metric, equals too, where it is better than another."""
    best: dict[str, float] = {}
    for name in METRICS:
        found = [value for row in rows if (value := row.values.get(name)) is not None]
        if found and min(found) < max(found):
            best[name] = max(found)
    return [
        replace(row, best={name for name, value in best.items() if row.values[name] == value})
        for row in rows
    ]


def _require_each_once(documents: Sequence[ScoresDocument]) -> None:
    ids = [one.id for one in documents]
    twice = [one for one in dict.fromkeys(ids) if ids.count(one) > 1]
    if twice:
        raise ArtifactError(f"{', '.join(twice)} is named twice; name each of the scores once")


def _require_alike(documents: Sequence[ScoresDocument]) -> None:
    first, *others = documents
    for one in others:
        ours, theirs = (each.parents.cache.dataset for each in (first, one))
        if ours != theirs or list(first.categories) != list(one.categories):
            raise ArtifactError(
                f"{first.id} is of {ours} ({', '.join(first.categories)}), {one.id} of {theirs} "
                f"({', '.join(one.categories)}); compare scores of one target"
            )
        if first.aupro != one.aupro:
            raise ArtifactError(
                f"{first.id} has AUPRO {first.aupro}, {one.id} {one.aupro}, which are not the same "
                "number; score one again with the other's --aupro"
            )


def _of_all(take: Callable[[list[float]], float], values: Sequence[float | None]) -> float | None:
    """Give what is taken of the values of all seeds; None where one has none."""
    known = [value for value in values if value is not None]
    return take(known) if len(known) == len(values) else None
