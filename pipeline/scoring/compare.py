"""Our scores beside the published ones: which direction they belong to, and what differs."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from cache.objects import Objects
from pipeline.artifacts import Artifact, folder, load_artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.artifacts.terms import Backbone, CacheParent
from pipeline.configs import FitGuidesConfig, FitSaeConfig, ScoreConfig
from pipeline.inputs import open_dataset
from pipeline.kinds import SAY
from pipeline.scoring.published import (
    BENCHMARKS,
    OURS_BY_BACKBONE,
    SOURCE,
    DatasetFacts,
    Direction,
    direction_to,
    other_data,
    published,
)
from pipeline.scoring.published_categories import Numbers, read_published
from pipeline.tables.metrics import METRICS, PUBLISHED
from pipeline.tables.of_metrics import Row, Table, score_notes, score_rows
from pipeline.words import transfer_words
from spg_core.errors import ConfigError, IncompleteCache, NotInStore

_SIZES = {"dinov3": 448, "openclip": 518}
_UNCOMPARED = ("device", "seed")
"""Settings that do not change what a number means."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What stands between a run of ours and the published rows of its direction."""

    direction: Direction
    data: Sequence[str]
    """Where the data differs; not empty means that the numbers do not compare."""
    settings: Sequence[str]
    """Where backbone, recipe or metric differ from the published SPG with this backbone."""
    reference: str | None
    """The published row of SPG with the same backbone."""

    def rows(self, section: str, typed: Mapping[str, Numbers] | None = None) -> list[Row]:
        """Give the published rows, each with what it does not share with ours.

        Args:
            section: of the table.
            typed: numbers of one category by method; the means of Table 1 otherwise.
        """
        made = []
        for method, values in (published(self.direction) if typed is None else typed).items():
            differs = [*self.data]
            if method == self.reference:
                differs += self.settings
            elif method in OURS_BY_BACKBONE.values():
                differs += ["another backbone", *self.settings]
            else:
                differs += ["another method"]
            made.append(
                Row(
                    section=section,
                    kind="published" if typed is None else "published category",
                    name=method,
                    values=values,
                    differs="; ".join(differs),
                    other_data=bool(self.data),
                )
            )
        return made

    def notes(self) -> list[str]:
        """Say in words what the published rows share with ours and what they do not."""
        said = [f"{self.direction}: {line}" for line in self._said()]
        return [SOURCE, *said]

    def _said(self) -> list[str]:
        lines = []
        if self.data:
            lines.append(f"NOT COMPARABLE, other data than ours: {'; '.join(self.data)}")
        reference = self.reference or "SPG"
        if self.settings:
            lines.append(f"ours differs from the published {reference}: {', '.join(self.settings)}")
        else:
            lines.append(f"ours has the settings of the published {reference}")
        return lines


def compare(
    store: Objects, scores: Artifact[ScoresDocument], direction: Direction | None = None
) -> Comparison | None:
    """Compare scores with the published rows; None where no published direction has their target.

    Args:
        store: holds the scores, and their parents if anything is to be known about them.
        scores: the artifact.
        direction: which published rows to take where the target's name and categories do not say.
    """
    document = scores.document
    target = _target_facts(store, scores)
    direction = direction_to(target) or direction
    if direction is None:
        return None
    return Comparison(
        direction=direction,
        data=other_data(direction, _aux_facts(store, document.fitted_on), target),
        settings=[
            *_backbone_differences(document.backbone),
            *_setting_differences(store, scores),
        ],
        reference=OURS_BY_BACKBONE.get(document.backbone.name),
    )


def score_table(
    store: Objects, scores: Artifact[ScoresDocument], typed: str | None = None
) -> Table:
    """Give one run's table: its categories, their mean, and the published means where any apply.

    Args:
        store: holds the scores.
        scores: the artifact.
        typed: a file of published numbers by category, to stand beside ours.

    Raises: ConfigError, DatasetError for `typed`.
    """
    if typed is not None:
        return _by_category(store, scores, typed)
    document = scores.document
    section = f"{document.fitted_on.dataset} -> {document.parents.cache.dataset}"
    rows = score_rows(document, section)
    notes = score_notes(document)
    comparison = compare(store, scores)
    if comparison is not None:
        rows += comparison.rows(section)
        notes += comparison.notes()
    direction = transfer_words(
        document.fitted_on.dataset, document.parents.cache.dataset, document.backbone.name
    )
    caption = f"{direction}: metrics in %, AUPRO {document.aupro}; the best mean in bold."
    return Table(metrics=list(METRICS), rows=rows, notes=notes, caption=caption)


def _by_category(store: Objects, scores: Artifact[ScoresDocument], typed: str) -> Table:
    """Give a section a category, ours above the published, and one of the means."""
    document = scores.document
    comparison = compare(store, scores)
    if comparison is None:
        raise ConfigError(
            f"--published is for {' and '.join(BENCHMARKS)}; {scores.id} is of "
            f"{document.parents.cache.dataset} ({', '.join(document.categories)})"
        )
    methods = read_published(typed, comparison.direction)
    *ours, mean = score_rows(document, "")
    rows = []
    for row in ours:
        here = {name: numbers[row.name] for name, numbers in methods.items() if row.name in numbers}
        rows += [replace(row, section=row.name, name="ours"), *comparison.rows(row.name, here)]
    rows += [replace(mean, section="mean", name="ours"), *comparison.rows("mean")]
    notes = [*score_notes(document), *comparison.notes(), f"published categories: {typed}"]
    return Table(metrics=PUBLISHED, rows=rows, notes=notes, of="method")


def _target_facts(store: Objects, scores: Artifact[ScoresDocument]) -> DatasetFacts:
    """Describe the scored dataset from the scores alone."""
    data = store.get(f"{folder('scores', scores.id)}/images.parquet")
    n_images = pq.ParquetFile(io.BytesIO(data)).metadata.num_rows
    name = scores.document.parents.cache.dataset
    return DatasetFacts(name, frozenset(scores.document.categories), n_images)


def _aux_facts(store: Objects, parent: CacheParent) -> DatasetFacts | None:
    """Describe the dataset that the guides were fitted on; None where its cache is not here."""
    try:
        data = open_dataset(store, parent.dataset, parent.backbone, parent.key)
    except (NotInStore, IncompleteCache):
        return None
    return DatasetFacts(data.dataset, frozenset(data.manifest.categories), data.cache.n_images)


def _backbone_differences(backbone: Backbone) -> list[str]:
    name, spec = backbone.name, backbone.spec
    if name not in OURS_BY_BACKBONE:
        return [f"backbone {name} (published: {' and '.join(OURS_BY_BACKBONE)})"]
    said = []
    if spec.height != _SIZES[name]:
        said.append(f"input of {spec.height} px (published: {_SIZES[name]})")
    if spec.layer is not None:
        said.append(f"layer {spec.layer} (published: the last)")
    return said


def _setting_differences(store: Objects, scores: Artifact[ScoresDocument]) -> list[str]:
    """List every setting of the three stages that is not the released recipe's."""
    said = _config_differences(scores.document.config, ScoreConfig(aupro="clip200"), "")
    kind, identifier = scores.document.parents.detector
    if kind != "guides":
        return [*said, f"{SAY[kind]} {identifier} (published: guides alone)"]
    try:
        guides = load_artifact(store, "guides", identifier)
        said += _config_differences(guides.document.config, FitGuidesConfig(), "guides ")
        if guides.document.parents.sae is None:
            return [*said, f"SAE of others, {guides.document.parents.over}"]
        sae = load_artifact(store, "saes", guides.document.parents.sae)
        said += _config_differences(sae.document.config, FitSaeConfig(), "SAE ")
    except NotInStore as error:
        said.append(f"settings that are not known here ({error})")
    return said


def _config_differences(ours: object, theirs: object, stage: str) -> list[str]:
    expected = vars(theirs)
    return [
        f"{stage}{name.replace('_', ' ')} {value} (published: {expected[name]})"
        for name, value in vars(ours).items()
        if name not in _UNCOMPARED and value != expected[name]
    ]
