"""`spg-pipe table`."""

from typing import TYPE_CHECKING

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import TableSource

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.tables import Table


def table(store: "AnyStore", source: TableSource) -> "tuple[str, Table]":
    """Print the table of some scores, a category a row, beside the published means."""
    from pipeline.tables import check_out, write_table

    if source.out is not None:
        check_out(source.out)
    from cache.store import open_store
    from pipeline.artifacts import load_artifact
    from pipeline.scoring.compare import score_table

    objects = open_store(store)
    artifact = load_artifact(objects, "scores", source.scores)
    made = score_table(objects, artifact)
    if source.out is not None:
        write_table(made, source.out)
    return artifact.id, made


def show_table(made: "tuple[str, Table]", as_json: bool) -> None:
    """Print the table."""
    from pipeline.tables import as_records, to_text

    identifier, found = made
    result = {"id": identifier, "rows": as_records(found), "notes": list(found.notes)}
    show(result, as_json, to_text(found))


app = alone("table", from_config(table, show_table))
