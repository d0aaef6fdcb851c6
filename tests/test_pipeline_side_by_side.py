"""Several scores of one target in one table: who is who, what is best, what seeds vary by."""

import json
import statistics
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import spg_pipe
from cache.store import open_store
from pipeline.artifacts import save_artifact
from pipeline.cli import app
from pipeline.configs import ScoreConfig
from pipeline.fitting.guides import fit_guides
from pipeline.scoring.methods import Method, labels, method_of
from pipeline.scoring.score import score, score_group
from pipeline.scoring.side_by_side import mark_best, side_by_side
from pipeline.tables.latex import to_latex
from pipeline.tables.metrics import METRICS
from pipeline.tables.of_metrics import Row, Table, to_csv, to_text
from spg_core.errors import ArtifactError
from tests.artifact_samples import scores_document, scores_table
from tests.small_store import GUIDES

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def store(small_store):
    return open_store(small_store.url)


@pytest.fixture(scope="module")
def by_seed(store, small_store):
    """Scores of three seeds of one config, then of two controls."""
    configs = [replace(GUIDES, seed=seed) for seed in SEEDS]
    configs += [replace(GUIDES, dictionary=kind) for kind in ("pca", "none")]
    guides = [fit_guides(store, small_store.sae.id, one, direct=False).id for one in configs]
    return score_group(store, [(one, ScoreConfig()) for one in guides], "target")


def rows_of(table: Table, name: str) -> list[Row]:
    return [row for row in table.rows if row.name == name]


def test_seeds_of_one_method_are_one_row_of_mean_and_spread(store, by_seed) -> None:
    table = side_by_side(store, by_seed)

    (mean,) = [row for row in rows_of(table, "SPG") if row.kind == "mean"]
    values = [one.document.mean.values["pixel_auroc"] for one in by_seed[:3]]
    assert mean.values["pixel_auroc"] == pytest.approx(statistics.fmean(values))
    assert mean.spread["pixel_auroc"] == pytest.approx(statistics.stdev(values))
    assert "± is the standard deviation over seeds (SPG: 3)" in table.notes
    assert not rows_of(table, "PCA")[0].spread


def test_every_category_has_every_method_and_the_mean_comes_last(store, by_seed) -> None:
    table = side_by_side(store, by_seed)

    assert table.caption == (
        "Methods on target: metrics in %, AUPRO exact; the best of each category in bold."
    )
    names = ["SPG", "PCA", "free guides"]
    sections = [*by_seed[0].document.categories, "mean"]
    assert [(row.section, row.name) for row in table.rows] == [
        (section, name) for section in sections for name in names
    ]
    for section in sections:
        rows = [row for row in table.rows if row.section == section]
        for metric in METRICS:
            values = [row.values[metric] or 0.0 for row in rows]
            tied = len(set(values)) == 1
            assert [metric in row.best for row in rows] == [
                one == max(values) and not tied for one in values
            ]


def test_methods_are_named_by_what_they_differ_in(store, small_store) -> None:
    configs = [
        (GUIDES, ScoreConfig()),
        (replace(GUIDES, beta=0.01), ScoreConfig()),
        (replace(GUIDES, dictionary="random"), ScoreConfig(sigma=2)),
    ]
    made = [
        score(
            store, fit_guides(store, small_store.sae.id, fit, direct=False).id, "target", how,
            direct=False,
        )
        for fit, how in configs
    ]  # fmt: skip

    methods = [method_of(store, one.document) for one in made]

    assert labels(methods) == ["SPG, guides beta 0.00025", "SPG, guides beta 0.01", "random atoms"]
    assert methods[0].seeds == ["111", "111"]


def test_other_tokens_make_another_method_that_is_told_by_its_id(store, by_seed, small_store):
    other = replace(by_seed[0].document.parents.cache, key="f" * 16)
    document = by_seed[0].document
    forged = replace(
        document, id="target-from-elsewhere-00000009",
        parents=replace(document.parents, cache=other),
    )  # fmt: skip
    artifact = save_artifact(store, forged, scores_table())

    table = side_by_side(store, [by_seed[0], artifact])

    assert [row.name for row in table.rows[:2]] == [f"SPG ({by_seed[0].id})", f"SPG ({forged.id})"]


def test_scores_whose_guides_are_elsewhere_are_named_by_them(tmp_path) -> None:
    store = open_store(tmp_path)
    document = scores_document()
    save_artifact(store, document, scores_table())

    method = method_of(store, document)

    assert method.kind == "guides/nuts-tiny-c4-k2-00000002"
    assert method.facts["guides"] == ["guides/nuts-tiny-c4-k2-00000002"]


def test_scores_of_other_targets_or_definitions_are_refused(store, small_store, by_seed) -> None:
    own = score(store, small_store.guides.id, "aux", ScoreConfig(), direct=False)
    with pytest.raises(ArtifactError, match=r"is of target \(.*\), aux-from-.* of aux"):
        side_by_side(store, [by_seed[0], own])

    clip = score(store, small_store.guides.id, "target", ScoreConfig(aupro="clip200"), direct=False)
    with pytest.raises(ArtifactError, match=r"has AUPRO exact, .* clip200, which are not the same"):
        side_by_side(store, [by_seed[0], clip])


def test_scores_that_are_named_twice_are_refused(store, by_seed) -> None:
    with pytest.raises(ArtifactError, match=f"^{by_seed[0].id} is named twice; name each"):
        side_by_side(store, [*by_seed, by_seed[0]])


def test_the_best_is_marked_where_there_are_two_to_compare() -> None:
    def row(name: str, auroc: float | None, aupro: float | None) -> Row:
        values = dict.fromkeys(METRICS) | {"image_auroc": auroc, "pixel_aupro": aupro}
        return Row(section="hex", kind="category", name=name, values=values)

    marked = mark_best([row("a", 0.5, 0.9), row("b", 0.5, None), row("c", 0.25, None)])
    tied = mark_best([row("a", 0.5, 0.9), row("b", 0.5, 0.8)])

    assert [one.best for one in marked] == [{"image_auroc"}, {"image_auroc"}, set()]
    assert [one.best for one in tied] == [{"pixel_aupro"}, set()]


SMALL = Table(
    metrics=["image_auroc", "pixel_aupro"],
    rows=[
        Row(
            section="hex",
            kind="category",
            name="SPG",
            values={"image_auroc": 0.9144, "pixel_aupro": 0.5},
            spread={"image_auroc": 0.0123, "pixel_aupro": 0.1},
            best={"image_auroc"},
        ),
        Row(
            section="hex",
            kind="category",
            name="memory, shots 4",
            values={"image_auroc": 0.9, "pixel_aupro": 0.75},
            best={"pixel_aupro"},
        ),
    ],
    of="method",
)


def test_a_comparison_for_a_terminal_for_latex_and_for_programs() -> None:
    assert to_text(SMALL).splitlines()[-2:] == [
        "  SPG               *91.4 ± 1.2   50.0 ± 10.0",
        "  memory, shots 4          90.0         *75.0",
    ]
    assert r"SPG & \textbf{91.4 $\pm$ 1.2} & 50.0 $\pm$ 10.0 \\" in to_latex(SMALL)
    assert to_csv(SMALL).splitlines() == [
        "section,source,kind,name,image_auroc,pixel_aupro,image_auroc_spread,pixel_aupro_spread,"
        "differs",
        "hex,ours,category,SPG,0.9144,0.5,0.0123,0.1,",
        'hex,ours,category,"memory, shots 4",0.9,0.75,,,',
    ]


def test_parts_of_several_layers_are_named_by_all_of_them() -> None:
    def method(*layers: str) -> Method:
        return Method("SPG", {"layer": layers}, ())

    assert labels([method("5", "8"), method("last", "last")]) == [
        "SPG, layer 5+8",
        "SPG, layer last",
    ]


def test_the_command_and_the_notebook_take_a_list(small_store, by_seed) -> None:
    ids = [one.id for one in by_seed]
    words = ["table", "--scores", ",".join(ids), "--store", small_store.url]

    said = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    table = spg_pipe.table(small_store.url, scores=ids)

    assert said["scores"] == ids
    assert [row["name"] for row in said["rows"]] == [row.name for row in table.rows]
    assert len(table.to_pandas()) == len(table.rows)
    assert f"SPG ({ids[0]})" not in CliRunner().invoke(app, words).stdout
