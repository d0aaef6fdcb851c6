"""`spg-pipe table`."""

from typing import Annotated

import typer

from pipeline.commands.options import DEFAULT_STORE, Debug, Json, Store, show


def table(
    scores: Annotated[str, typer.Option(help="Scores: id, start of an id, path, or latest.")],
    out: Annotated[
        str | None, typer.Option(help="Also write the table to this .csv, .tex or .parquet file.")
    ] = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the table of some scores, a category a row, beside the published means."""
    from pipeline.tables import as_records, check_out, to_text, write_table

    if out is not None:
        check_out(out)
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.scoring.compare import score_table

    objects = open_store(store)
    artifact = load_artifact(objects, "scores", scores)
    made = score_table(objects, artifact)
    if out is not None:
        write_table(made, out)
    result = {"id": artifact.id, "rows": as_records(made), "notes": list(made.notes)}
    show(result, as_json, to_text(made))
