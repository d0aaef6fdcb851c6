"""What a command prints of what it made, by the command's name: one JSON object, or text."""

import json
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pipeline.commands.tally import Tally
from pipeline.terminal.printable import counted, printable, printable_line
from pipeline.terminal.progress import say
from pipeline.terminal.stopping import held

if TYPE_CHECKING:
    from pipeline.artifacts import Artifact
    from pipeline.artifacts.documents import (
        CombinationDocument,
        GuidesDocument,
        MemoryDocument,
        SaeDocument,
        ScoresDocument,
    )
    from pipeline.artifacts.notes import ThresholdDocument
    from pipeline.atoms.browser import AtomPage
    from pipeline.atoms.files import AtomFiles
    from pipeline.extraction.extract import Extraction
    from pipeline.interchange.saelens import SaeFiles
    from pipeline.prediction.export import Exported
    from pipeline.prediction.predict import Prediction
    from pipeline.reproduce.paper import Reproduced
    from pipeline.sweep.plan import SweepPlan
    from pipeline.sweep.run import Sweep
    from pipeline.tables.of_metrics import Table


def show(result: Mapping[str, object], as_json: bool, text: str) -> None:
    """Print a result on stdout: one JSON object, or text for people."""
    typer.echo(json.dumps(result) if as_json else printable(text))


def extract(done: "Extraction", as_json: bool) -> None:
    """Print what is in the store now; `key` and `path` where it is one cache."""
    only = {"key": done.key, "path": done.path} if len(done.caches) == 1 else {}
    caches = [asdict(one) for one in done.caches]
    result = {**only, "images": done.images, "state": done.state, "caches": caches}
    lines = (f"{one.path}: {counted(one.images, 'image')}, {one.state}" for one in done.caches)
    show(result, as_json, "\n".join(lines))


def fit_sae(made: "Artifact[SaeDocument]", as_json: bool) -> None:
    """Print how well it reconstructs, and where it is."""
    result = {"id": made.id, "path": made.path, "quality": vars(made.document.quality)}
    show(result, as_json, repr(made))


def fit_guides(made: "Artifact[GuidesDocument]", as_json: bool) -> None:
    """Print how sparse they are, and where they are."""
    show({"id": made.id, "path": made.path}, as_json, repr(made))


def fit_memory(made: "Artifact[MemoryDocument]", as_json: bool) -> None:
    """Print what it holds, and where it is."""
    held = {name: vars(one) for name, one in made.document.categories.items()}
    show({"id": made.id, "path": made.path, "categories": held}, as_json, repr(made))


def combine(made: "Artifact[CombinationDocument]", as_json: bool) -> None:
    """Print how the parts meet, and where it is."""
    parts = [asdict(one) for one in made.document.parts]
    show({"id": made.id, "path": made.path, "parts": parts}, as_json, repr(made))


def score(made: "Artifact[ScoresDocument]", as_json: bool) -> None:
    """Print the metrics in %, and where they and the report are."""
    has_report = made.place.store.size(made.place.name("report.html")) is not None
    _scores(made, as_json, f"{made.path}/report.html" if has_report else made.path)


def demo(made: "Artifact[ScoresDocument]", as_json: bool) -> None:
    """Print the metrics, and the page to open."""
    _scores(made, as_json, f"open {made.path}/report.html")


def _scores(made: "Artifact[ScoresDocument]", as_json: bool, last: str) -> None:
    from pipeline.artifacts import to_json
    from pipeline.tables.of_metrics import metrics_table

    result = {"id": made.id, "path": made.path, "metrics": to_json(made.document)}
    show(result, as_json, f"{metrics_table(made.document)}\n{last}")


def sweep(made: "Sweep | SweepPlan", as_json: bool) -> None:
    """Print the best points, and where the table is; exit 1 where some failed. Or the plan."""
    from pipeline.sweep.plan import SweepPlan

    if isinstance(made, SweepPlan):
        show(made.to_json(), as_json, repr(made))
        return
    result = {
        "id": made.id,
        "path": made.path,
        "points": len(made.rows),
        "failed": [dict(row) for row in made.failed],
        "figures": made.figures,
    }
    show(result, as_json, repr(made))
    if made.failed:
        raise typer.Exit(1)


def table(made: "tuple[list[str], Table]", as_json: bool) -> None:
    """Print the table."""
    from pipeline.tables.of_metrics import as_records, to_text

    ids, found = made
    rows, notes = as_records(found), list(found.notes)
    result = {"id": ids[0], "scores": ids, "rows": rows, "notes": notes}
    show(result, as_json, to_text(found))


def reproduce(made: "Reproduced", as_json: bool) -> None:
    """Print the table, or where the figure is."""
    show(made.result, as_json, made.text)


def atoms(made: "AtomFiles | AtomPage", as_json: bool) -> None:
    """Print an atom a line, then the files; of a page, how many there are and where."""
    from pipeline.atoms.browser import AtomPage

    if isinstance(made, AtomPage):
        show(asdict(made), as_json, repr(made))
        return
    lines = []
    for one in made.atoms:
        spread = sorted(one.category_spread.items(), key=lambda pair: -pair[1])
        shares = ", ".join(f"{name} {share:.0%}" for name, share in spread[:3])
        lines.append(
            f"{one.guide:<8} atom {one.index:>5}  coefficient {one.coefficient:.4f}  "
            f"{shares or 'never active'}"
        )
    files = [f"{made.path}/{name}" for name in made.files]
    show(made.to_json(), as_json, "\n".join([*lines, *files]))


def calibrate(made: "ThresholdDocument", as_json: bool) -> None:
    """Print each threshold and what it does on the images it was chosen on."""
    from pipeline.artifacts import to_json
    from pipeline.prediction.threshold import describe

    lines = []
    for one in made.chosen:
        found = one.measured
        low, high = found.normal_scores
        lines += [
            f"threshold {one.threshold:.4f}, {describe(made, one)}",
            f"  flags {round(found.fpr * found.n_normal)} of {found.n_normal} good ones, which "
            f"score {low:.4f} to {high:.4f}",
        ]
        if found.anomalous_scores is not None and found.tpr is not None:
            low, high = found.anomalous_scores
            lines.append(
                f"  flags {round(found.tpr * found.n_anomalous)} of {found.n_anomalous} bad ones, "
                f"which score {low:.4f} to {high:.4f}; F1 {found.f1:.3f}"
            )
    if made.asked.calibrated_on.is_auxiliary:
        lines.append(
            "  the guides were fitted on these images: expect worse on others, whatever is promised"
        )
    result = {**to_json(made), "threshold": made.threshold}
    show(result, as_json, "\n".join(lines))


def predict(predictions: "Generator[Prediction]", as_json: bool) -> None:
    """Print an image a line as it is judged, a summary on stderr; exit 1 where one failed."""
    # No progress bar: rich would send our stdout lines to stderr while one is on a terminal.
    if not as_json:
        typer.echo(f"{'score':<7} {'applies':<8} {'verdict':<10} image")
    count = Tally()
    try:
        for one in predictions:
            with held():  # a line is whole
                typer.echo(json.dumps(asdict(one)) if as_json else _line(one))
                count.add(one)
    except KeyboardInterrupt as signal:
        # it may come while this prints: a watch ends by it as by one that comes while it judges
        with suppress(StopIteration):
            predictions.throw(signal)
    finally:
        say(count.told())
    if count.failed:
        raise typer.Exit(1)


def _line(one: "Prediction") -> str:
    if one.error is not None:
        return printable_line(f"{'-':<7} {'-':<8} {'error':<10} {one.error}")
    applies = "-" if one.applicability is None else f"{one.applicability:.2f}"
    doubt = f": {one.reason}" if one.verdict is not None and one.reason else ""
    verdict = one.verdict or "-"
    return printable_line(f"{one.score:<7.4f} {applies:<8} {verdict:<10} {one.path}{doubt}")


def export(made: "Exported | SaeFiles", as_json: bool) -> None:
    """Print the files, and of ONNX how far onnxruntime is from ours."""
    from pipeline.interchange.saelens import SaeFiles

    if isinstance(made, SaeFiles):
        files = "\n".join(f"{made.path}/{file}" for file in made.files)
        show({"path": made.path, "sae": made.sae, "files": list(made.files)}, as_json, files)
        return
    check = made.document.check
    result = {"path": made.path, "sidecar": made.sidecar, "runtime": made.runtime}
    text = (
        f"{made.path}\n{made.sidecar}\n{made.runtime}\n"
        f"  differs from ours by at most {check.map_max_abs_difference:.1e} in maps and "
        f"{check.score_max_abs_difference:.1e} in scores ({check.images} images)"
    )
    show({**result, "guides": made.document.guides, "check": vars(check)}, as_json, text)
