"""Experiment trackers: what `training.jsonl` holds, also where a team looks at its runs.

A tracker works in a thread of its own. One that fails is named once and left alone, one that hangs
is not waited for: no fit ends, or waits, because of it. A fit that goes on continues its run, by
the id of what it makes.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import time
from typing import Literal, Protocol

from pipeline.terminal.printable import printable_line
from pipeline.terminal.progress import say
from spg_core.errors import ConfigError

Kind = Literal["tensorboard", "mlflow", "wandb", "trackio"]
Line = Mapping[str, float]
"""`step`, and what was measured there."""

PROJECT = "spg-pipe"
_PACKAGES: dict[Kind, str] = {
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
    "trackio": "trackio",
}
_SECONDS_BETWEEN = 2.0
_LEAVING_SECONDS = 5.0


class Tracker(Protocol):
    """One run in a tracker. Whatever it raises is said once."""

    def log(self, lines: Sequence[Line]) -> None:
        """Write lines, in order."""
        ...

    def close(self, finished: bool) -> None:
        """End the run: for good, or until it is gone on with."""
        ...


def require_tracker(kind: Kind | None) -> None:
    """Refuse a tracker whose package is not there. Raises: ConfigError."""
    if kind is not None and find_spec(_PACKAGES[kind]) is None:
        raise ConfigError(
            f"--track {kind} needs the package {_PACKAGES[kind]}, which is not installed; "
            f"pip install 'spg-pipe[{kind}]'"
        )


class Following:
    """Hands the lines of one run to its tracker, in a thread."""

    def __init__(self, kind: Kind, identifier: str, config: Mapping[str, object], first: int):
        """Begin a run, or go on with it after step `first`."""
        self._kind: Kind = kind
        self._lines: SimpleQueue[Line] = SimpleQueue()
        self._ending, self._finished = Event(), False
        run = (identifier, config, first)
        self._thread = Thread(target=self._work, args=run, daemon=True, name=f"{kind} {identifier}")
        self._thread.start()

    def add(self, line: Line) -> None:
        """Hand on a line."""
        self._lines.put(dict(line))

    def close(self, finished: bool) -> None:
        """End the run and wait a little for what is still to be written."""
        self._finished = finished
        self._ending.set()
        self._thread.join(_LEAVING_SECONDS)
        if self._thread.is_alive():
            say(f"remark: {self._kind} does not answer and is not waited for")

    def _work(self, identifier: str, config: Mapping[str, object], first: int) -> None:
        try:
            tracker = _OPEN[self._kind](identifier, config, first)
            while not self._ending.wait(_SECONDS_BETWEEN):
                tracker.log(self._ready())
            tracker.log(self._ready())
            tracker.close(self._finished)
        except Exception as error:  # noqa: BLE001 - of a program we know nothing of
            told = printable_line(str(error).partition("\n")[0] or type(error).__name__)
            say(f"remark: {self._kind} failed ({told}); the fit goes on without it")

    def _ready(self) -> list[Line]:
        lines: list[Line] = []
        while True:
            try:
                lines.append(self._lines.get_nowait())
            except Empty:
                return lines


Follow = Callable[[int], Following]
"""Begins a run, or goes on with it after a step."""


def follower(kind: Kind | None, identifier: str, config: Mapping[str, object]) -> Follow | None:
    """Give what has a tracker follow a fit, None where none is to."""
    if kind is None:
        return None
    return lambda first: Following(kind, identifier, config, first)


class _TensorBoard:
    """Event files below `runs/` in the current folder."""

    def __init__(self, identifier: str, config: Mapping[str, object], first: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # what a crashed run wrote after its last checkpoint is written again
        purge = first + 1 if first else None
        self._writer = SummaryWriter(f"runs/{identifier}", purge_step=purge)
        text = "\n".join(f"    {name}: {value}" for name, value in config.items())
        self._writer.add_text("config", text, first)

    def log(self, lines: Sequence[Line]) -> None:
        for line in lines:
            for name, value in _measured(line).items():
                self._writer.add_scalar(name, value, int(line["step"]))
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


class _MlFlow:
    """A run where `MLFLOW_TRACKING_URI` says, found again by its tag `spg.id`."""

    _MOST = 1000
    """Metrics that one call takes."""

    def __init__(self, identifier: str, config: Mapping[str, object], first: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        place = self._client.create_experiment(name) if known is None else known.experiment_id
        found = (
            self._client.search_runs([place], f"tags.`spg.id` = '{identifier}'") if first else []
        )
        if found:
            self._run: str = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        made = self._client.create_run(place, run_name=identifier, tags={"spg.id": identifier})
        self._run = made.info.run_id
        told = [Param(one, str(value)) for one, value in config.items()]
        self._client.log_batch(self._run, params=told)

    def log(self, lines: Sequence[Line]) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        numbers = [
            Metric(name, float(value), now, int(line["step"]))
            for line in lines
            for name, value in _measured(line).items()
        ]
        for at in range(0, len(numbers), self._MOST):
            self._client.log_batch(self._run, metrics=numbers[at : at + self._MOST])

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


class _Wandb:
    """A run of the same id; `WANDB_MODE=offline` keeps it on disk."""

    def __init__(self, identifier: str, config: Mapping[str, object], first: int) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=identifier,
            name=identifier,
            config=dict(config),
            resume="allow",
            reinit="create_new",
        )

    def log(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._run.log(_measured(line), step=int(line["step"]))

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class _Trackio:
    """A run of the same name, in trackio's own folder."""

    def __init__(self, identifier: str, config: Mapping[str, object], first: int) -> None:
        import trackio

        with redirect_stdout(sys.stderr):  # it prints, and stdout holds results only
            self._run = trackio.init(
                project=PROJECT, name=identifier, config=dict(config), resume="allow", embed=False
            )

    def log(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._run.log(_measured(line), step=int(line["step"]))

    def close(self, finished: bool) -> None:
        with redirect_stdout(sys.stderr):
            self._run.finish()


_OPEN: dict[Kind, Callable[[str, Mapping[str, object], int], Tracker]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MlFlow,
    "wandb": _Wandb,
    "trackio": _Trackio,
}


def _measured(line: Line) -> dict[str, float]:
    return {name: value for name, value in line.items() if name != "step"}
