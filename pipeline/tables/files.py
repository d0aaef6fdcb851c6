"""Tables that a user asked for outside the store, by the suffix of their name."""

from pathlib import Path

from pipeline.files import check_place, write_file
from pipeline.tables.latex import to_latex
from pipeline.tables.of_metrics import Table, to_csv, to_parquet
from pipeline.terminal.progress import say
from spg_core.errors import ConfigError

SUFFIXES = (".csv", ".tex", ".parquet")


def check_out(name: str) -> str:
    """Give the suffix of a table's file, before anything is computed for it.

    Raises: ConfigError unless it is one of `SUFFIXES`, StoreError where no file can be written.
    """
    suffix = Path(name).suffix
    if suffix not in SUFFIXES:
        raise ConfigError(f"{name} should end in one of {', '.join(SUFFIXES)}")
    check_place(Path(name))
    return suffix


def write_table(table: Table, name: str) -> None:
    """Write a table to a file; its suffix says how.

    Raises: ConfigError for another suffix, StoreError where nothing can be written.
    """
    match check_out(name):
        case ".csv":
            data = to_csv(table).encode()
        case ".tex":
            data = to_latex(table).encode()
        case _:
            data = to_parquet(table)
    write_file(Path(name), data)
    say(f"wrote {name}: {len(table.rows)} rows")
