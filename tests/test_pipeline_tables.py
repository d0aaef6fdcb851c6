"""Tables of metrics: what people read, what programs read, and what a published row says."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.store import open_store
from pipeline.artifacts.terms import Backbone, Metrics
from pipeline.configs import ScoreConfig
from pipeline.scoring.compare import compare, score_table
from pipeline.scoring.published import (
    BENCHMARKS,
    DatasetFacts,
    direction_to,
    other_data,
    published,
)
from pipeline.scoring.score import score
from pipeline.tables.files import write_table
from pipeline.tables.frames import csv_text
from pipeline.tables.latex import to_latex
from pipeline.tables.metrics import METRICS, PUBLISHED
from pipeline.tables.of_metrics import (
    Row,
    Table,
    metrics_table,
    to_csv,
    to_parquet,
    to_text,
)
from spg_core.errors import ConfigError, StoreError
from tests.artifact_samples import scores_document
from tests.small_store import SmallStore

SMALL = Table(
    metrics=["image_auroc", "pixel_aupro"],
    rows=[
        Row(
            section="visa -> mvtec",
            kind="category",
            name="metal_nut",
            values={"image_auroc": 0.9144, "pixel_aupro": None},
        ),
        Row(
            section="visa -> mvtec",
            kind="mean",
            name="mean",
            values={"image_auroc": 0.5, "pixel_aupro": 0.25},
        ),
        Row(
            section="visa -> mvtec",
            kind="published",
            name="SPG (DINOv3)",
            values={"image_auroc": 0.914},
            differs="SAE epochs 5 (published: 50)",
        ),
    ],
    notes=["a note"],
)
TEXT = """\
  category                   image AUROC   AUPRO
 ────────────────────────────────────────────────
  visa -> mvtec
  metal_nut                         91.4       -

  mean                              50.0    25.0

  SPG (DINOv3) (published)          91.4       -

a note"""
LATEX = r"""% needs \usepackage{booktabs}
% a note
\begin{table}[t]
\centering
\caption{Anomaly detection visa $\to$ mvtec, in \%; the best in bold.}
\label{tab:visa-mvtec}
\begin{tabular}{lrr}
\toprule
 & \multicolumn{1}{c}{Image} & \multicolumn{1}{c}{Pixel} \\
\cmidrule(lr){2-2} \cmidrule(lr){3-3}
Category & AUROC & AUPRO \\
\midrule
\multicolumn{3}{l}{\emph{visa $\to$ mvtec}} \\
metal\_nut & 91.4 & - \\
\midrule
mean & 50.0 & 25.0 \\
\midrule
SPG (DINOv3) (published) & \textbf{91.4} & - \\
\bottomrule
\end{tabular}
\end{table}
"""
CSV = """\
section,source,kind,name,image_auroc,pixel_aupro,differs
visa -> mvtec,ours,category,metal_nut,0.9144,,
visa -> mvtec,ours,mean,mean,0.5,0.25,
visa -> mvtec,published,mean,SPG (DINOv3),0.914,,SAE epochs 5 (published: 50)
"""
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12)
SHARES = st.none() | st.floats(0, 1)
ROWS = st.lists(
    st.builds(
        lambda name, auroc, aupro, kind: Row(
            section="a -> b",
            kind=kind,
            name=name,
            values={"image_auroc": auroc, "pixel_aupro": aupro},
        ),
        NAMES,
        SHARES,
        SHARES,
        st.sampled_from(["category", "mean", "published"]),
    ),
    min_size=1,
    max_size=5,
)


HOSTILE = [
    r"\input{x}^^5c%",
    "[3cm] *nut",
    "a_b & c # $d$ ~ {",
    "é ± → <|> ---> −",
    "瓶子 🍾 עברית",
    "n\u0303 Ħ ﬁ \u200b",
]


def test_a_table_for_a_terminal() -> None:
    assert to_text(SMALL) == TEXT


def test_a_table_for_latex() -> None:
    assert to_latex(SMALL) == LATEX


def test_a_table_for_programs() -> None:
    assert to_csv(SMALL) == CSV


RISKY = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")


@given(rows=ROWS)
def test_csv_and_parquet_give_back_every_bit(rows: list[Row]) -> None:
    table = Table(metrics=["image_auroc", "pixel_aupro"], rows=rows)

    read = list(csv.DictReader(io.StringIO(to_csv(table), newline="")))
    parquet = pq.read_table(io.BytesIO(to_parquet(table))).to_pylist()

    for row, line, record in zip(rows, read, parquet, strict=True):
        assert record["name"] == row.name
        assert line["name"] == (f"'{row.name}" if RISKY.match(row.name) else row.name)
        assert line["source"] == ("published" if row.kind == "published" else "ours")
        for metric, value in row.values.items():
            assert record[metric] == value
            assert line[metric] == ("" if value is None else repr(value))
            assert line[metric] == "" or float(line[metric]) == value


@pytest.mark.parametrize(
    "name",
    [
        "=HYPERLINK(A1)",
        "+1",
        "-1+cmd",
        "@SUM(A1)",
        "\t=1",
        "\n=1",
        " =1",
        "\xa0@x",
        "＝1",
        "＋1",
        "－1",
        "＠x",
    ],
)
def test_no_name_in_a_csv_is_a_formula(name: str) -> None:
    row = Row(section=name, kind="category", name=name, values={}, differs=name)

    (read,) = csv.DictReader(io.StringIO(to_csv(Table(metrics=[], rows=[row])), newline=""))

    assert [read["section"], read["name"], read["differs"]] == [f"'{name}"] * 3


def test_negative_numbers_in_a_csv_stay_numbers() -> None:
    assert csv_text(["a", "b"], [{"a": -0.5, "b": None}]) == "a,b\n-0.5,\n"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        # after the end of a row LaTeX takes these two for an option of it
        ("[3cm] nut", "{[}3cm] nut"),
        ("*nut", "{*}nut"),
        # what the usual fonts of LaTeX show as other letters
        ("<nut|bolt>", r"\textless{}nut\textbar{}bolt\textgreater{}"),
        ("--nut---", "-{}-nut-{}-{}-"),
        ("a->b", r"a$\to$b"),
        # what cannot be seen, or turns the text around
        ("a\u202eb\nc\x7f", r"a\textbackslash{}u202eb\textbackslash{}nc\textbackslash{}x7f"),
        (r"\input{x}^^5c%", r"\textbackslash{}input\{x\}\textasciicircum{}\textasciicircum{}5c\%"),
    ],
)
def test_a_name_in_latex_is_shown_as_it_is(name: str, written: str) -> None:
    rows = [Row(section="", kind="category", name=one, values={}) for one in ("nut", name)]

    lines = to_latex(Table(metrics=[], rows=rows, notes=[f"{name}: none"])).splitlines()

    assert rf"{written} \\" in lines
    begins = lines.index(r"\begin{table}[t]")
    assert all(line.startswith("% ") for line in lines[:begins])


@given(rows=ROWS)
def test_latex_is_balanced_whatever_the_names(rows: list[Row]) -> None:
    text = to_latex(Table(metrics=["image_auroc", "pixel_aupro"], rows=rows, notes=["50 % {"]))

    body = "\n".join(line for line in text.split("\n") if not line.startswith("% "))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    plain = re.sub(r"\\[\\{}%&$#_]", "", body)  # what is escaped does not count
    depth = 0
    for letter in plain:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert plain.count("$") % 2 == 0
    assert "%" not in plain
    lines = [
        line for line in body.split("\n") if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert len(lines) == 1 + len(rows)  # the lower line of the head
    assert all(re.sub(r"\\[\\{}%&$#_]", "", line).count("&") == 2 for line in lines)


def test_the_best_of_what_compares_is_bold_and_published_rows_of_other_data_are_not() -> None:
    ours = replace(SMALL.rows[1], values={"image_auroc": 0.9, "pixel_aupro": 0.8})
    theirs = replace(SMALL.rows[2], values={"image_auroc": 0.95, "pixel_aupro": 0.7})

    same = to_latex(replace(SMALL, rows=[SMALL.rows[0], ours, theirs]))
    other = to_latex(replace(SMALL, rows=[ours, replace(theirs, other_data=True)]))

    assert r"mean & 90.0 & \textbf{80.0} \\" in same
    assert r"(published) & \textbf{95.0} & 70.0 \\" in same
    assert r"metal\_nut & 91.4 & -" in same
    assert r"\textbf" not in other
    equal = replace(ours, kind="published", name="equal")
    assert r"\textbf" not in to_latex(replace(SMALL, rows=[ours, equal]))


@pytest.mark.parametrize("engine", ["pdflatex", "lualatex"])
@pytest.mark.parametrize("names", [HOSTILE, ["Łódź Ąę «x»", "瓶"]], ids=["hostile", "T1"])
def test_a_table_of_hostile_names_compiles(tmp_path: Path, engine: str, names: list[str]) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"needs {engine} (texlive-latex-base, texlive-luatex)")
    rows = [
        Row(section=f"{name} -> b", kind="mean", name=name, values={"image_auroc": 0.5})
        for name in names
    ]
    table = Table(metrics=list(METRICS), rows=rows, notes=names, caption=" ".join(names))
    made = to_latex(table).replace("{table}", "{table*}")
    # of what the first line asks for, and nothing else
    needed = "".join(re.findall(r"\\usepackage\S+", made.splitlines()[0]))
    text = [rf"\documentclass[twocolumn]{{article}}{needed}\begin{{document}}\listoftables", made]
    (tmp_path / "t.tex").write_text("\n".join([*text, r"\end{document}"]))

    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    for _ in range(2):  # the second reads captions back
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

        assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def test_letters_that_pdflatex_lacks_are_shown_by_number_and_that_is_said() -> None:
    rows = [Row(section="", kind="category", name="瓶子 é n\u0303", values={})]

    text = to_latex(Table(metrics=[], rows=rows))

    assert r"\spgletters{瓶子}{U+74F6 U+5B50} é ñ \\" in text
    assert "% some names hold letters that pdflatex lacks" in text
    assert "spgletters" not in to_latex(SMALL)


def test_metrics_of_one_run_end_in_the_mean_and_say_why_some_are_missing() -> None:
    values: dict[str, Any] = dict.fromkeys(METRICS)
    screw = Metrics(**values, image_reason="no defective image")
    document = replace(scores_document(), mean=Metrics(**values), categories={"screw": screw})

    lines = metrics_table(document).splitlines()

    assert lines[-2:] == ["in %; AUPRO exact", "screw: no defective image"]
    assert lines[-4].split() == ["mean", *"-------"]


def test_files_are_written_by_their_suffix_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, start in (("t.csv", b"section,"), ("t.tex", b"% needs"), ("t.parquet", b"PAR1")):
        write_table(SMALL, str(tmp_path / name))

        assert (tmp_path / name).read_bytes().startswith(start)
        assert f"wrote {tmp_path / name}: 3 rows" in "".join(capsys.readouterr().err.split("\n"))


def test_a_suffix_or_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"should end in one of \.csv, \.tex, \.parquet"):
        write_table(SMALL, "t.xlsx")
    with pytest.raises(StoreError, match=r"cannot write .*: No such file or directory"):
        write_table(SMALL, str(tmp_path / "none" / "t.csv"))


def test_published_numbers_are_those_of_the_paper() -> None:
    for direction in ("VisA -> MVTec AD", "MVTec AD -> VisA"):
        rows = published(direction)  # type: ignore[arg-type]
        assert len(rows) == 8
        assert all(tuple(values) == PUBLISHED for values in rows.values())
    ours = published("MVTec AD -> VisA")["SPG (DINOv3)"]
    assert list(ours.values()) == [0.802, 0.843, 0.96, 0.891]
    assert published("VisA -> MVTec AD")["AA-CLIP"]["image_ap"] is None


def test_a_direction_is_known_by_categories_or_by_name() -> None:
    mvtec = BENCHMARKS["MVTec AD"].categories

    assert direction_to(DatasetFacts("factory", mvtec, 9)) == "VisA -> MVTec AD"
    assert direction_to(DatasetFacts("visa", frozenset({"x"}), 9)) == "MVTec AD -> VisA"
    assert direction_to(DatasetFacts("factory", frozenset({"x"}), 9)) is None


def test_only_the_benchmarks_themselves_compare() -> None:
    visa, mvtec = BENCHMARKS["VisA"], BENCHMARKS["MVTec AD"]
    short = DatasetFacts("mvtec", mvtec.categories, 1724)

    assert len(mvtec.categories) == 15
    assert len(visa.categories) == 12
    assert other_data("VisA -> MVTec AD", visa, mvtec) == []
    assert other_data("VisA -> MVTec AD", visa, short) == [
        "scored on mvtec (15 categories, 1724 images), "
        "published: MVTec AD (15 categories, 1725 images)"
    ]
    assert other_data("MVTec AD -> VisA", None, visa) == [
        "fitted on data that is not in this store, published: MVTec AD (15 categories, 1725 images)"
    ]


def test_scores_of_other_data_have_no_published_rows_unless_asked(small_store: SmallStore) -> None:
    store = open_store(small_store.url)
    done = score(store, small_store.guides.id, "target", ScoreConfig())

    table = score_table(store, done)

    kinds = {row.kind for row in table.rows}
    assert kinds == {"category", "mean"}
    assert [row.name for row in table.rows[:-1]] == list(done.document.categories)
    assert table.rows[-1].values["image_auroc"] == done.document.mean.image_auroc


def test_a_comparison_lists_data_backbone_and_every_setting(small_store: SmallStore) -> None:
    store = open_store(small_store.url)
    done = score(store, small_store.guides.id, "target", ScoreConfig(sigma=2))

    found = compare(store, done, "VisA -> MVTec AD")

    assert found is not None
    assert found.settings == [
        "backbone gabor (published: dinov3 and openclip)",
        "sigma 2.0 (published: 4.0)",
        "aupro exact (published: clip200)",
        "guides epochs 2 (published: 15)",
        "guides images per step 4 (published: 8)",
        "SAE width 64 (published: 4096)",
        "SAE k 8 (published: 32)",
        "SAE epochs 2 (published: 50)",
        "SAE images per step 4 (published: 16)",
    ]
    assert [text.split(" (")[0] for text in found.data] == ["fitted on aux", "scored on target"]
    assert all(row.other_data and row.kind == "published" for row in found.rows("s"))
    assert "NOT COMPARABLE, other data than ours" in found.notes()[1]


def test_the_same_backbone_and_settings_differ_in_nothing(small_store: SmallStore) -> None:
    store = open_store(small_store.url)
    done = score(store, small_store.guides.id, "target", ScoreConfig(aupro="clip200"))
    covers = {**done.document.backbone.covers, "height": 448}
    document = replace(done.document, backbone=Backbone(name="dinov3", covers=covers))

    found = compare(store, replace(done, document=document), "VisA -> MVTec AD")

    assert found is not None
    assert found.reference == "SPG (DINOv3)"
    assert not any("backbone" in text or "aupro" in text for text in found.settings)
    differs = {row.name: row.differs for row in found.rows("s")}
    assert "another backbone" in differs["SPG (OpenCLIP)"]
    assert "another backbone" not in differs["SPG (DINOv3)"]
    assert differs["WinCLIP"].endswith("another method")
