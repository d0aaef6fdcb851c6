"""Runs of `spg-pipe` over a failing disk: a process that has everything imported and forks them.

    with faulty_runs() as run:
        code, printed, counts = run(folder, ["extract", ..], Fault("write", 3, "EIO"))

As a program it reads one run a line, as JSON, and answers with one line each.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.faulty_disk import Fault, install

IMPORTED = (
    *(
        "matplotlib.pyplot",
        "zarr",
        "zarr.storage",
        "pyarrow.parquet",
        "jinja2",
        "safetensors.torch",
    ),
    *("pandas", "pyarrow.pandas_compat", "typer._adapters"),  # which others import at the first use
    *("PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PpmImagePlugin"),
    *("pipeline.cli", "pipeline.commands.app", "pipeline.stages", "pipeline.caches.work"),
    *("manifests.build", "spg_core.gabor", "pipeline.extraction.shards", "pipeline.fitting.sae"),
    *("pipeline.fitting.over_file", "pipeline.scoring.score", "pipeline.scoring.report_data"),
    *("pipeline.prediction.unlike", "pipeline.report", "pipeline.tables.text"),
)
"""What the runs need: each would take as long to import it as it takes to run."""


class Ended(NamedTuple):
    """How a run ended."""

    code: int | None
    """Exit code; None for an exception that nothing caught."""
    printed: str
    """On stdout and stderr."""
    counts: Counter[str]
    """Calls of each kind below the folder."""


@contextmanager
def faulty_runs() -> Iterator[Callable[[Path, Sequence[str], Fault | None], Ended]]:
    """Start the process; give a function that runs a command in a folder."""
    command = [sys.executable, "-m", "tests.faulty_runs"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        asked, answers = server.stdin, server.stdout

        def run(place: Path, arguments: Sequence[str], fault: Fault | None) -> Ended:
            asked.write(json.dumps([str(place), list(arguments), fault]).encode() + b"\n")
            asked.flush()
            code, counts = json.loads(answers.readline())
            return Ended(code, place.with_suffix(".log").read_text(), Counter(counts))

        yield run
        asked.close()


def _serve() -> None:
    import torch

    from pipeline.fitting import train

    torch.set_num_threads(1)
    for name in IMPORTED:
        importlib.import_module(name)
    train.pause_after = lambda seconds: 0.0  # each step has a checkpoint, which may fail
    answers = os.dup(sys.stdout.fileno())
    for line in sys.stdin:
        place, arguments, fault = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(Path(place), arguments, fault and Fault(*fault), answers)
        _, status = os.waitpid(child, 0)
        if status != 0:
            os.write(answers, json.dumps([-os.waitstatus_to_exitcode(status), {}]).encode() + b"\n")


def _run(place: Path, arguments: list[str], fault: Fault | None, answers: int) -> None:
    """Run a command in this process, which is made for it, and end it."""
    from pipeline.cli import main

    os.chdir(place)
    os.environ["XDG_CACHE_HOME"] = str(place / "xdg")
    log = os.open(place.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    counts = install(place, fault)
    code: Any = None
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:  # noqa: BLE001 - whatever it is, the test wants to see it
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(answers, json.dumps([code, counts]).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    _serve()
