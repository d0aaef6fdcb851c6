"""Members of a group that trains together: one model, its log, its checkpoint, how far it is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from cache.objects import Objects
from pipeline.fitting.checkpoint import checkpoint_time, load_checkpoint, save_checkpoint
from pipeline.fitting.log import TrainingLog
from pipeline.terminal.progress import say
from pipeline.terminal.stopping import Stopped
from pipeline.tracking import Follow
from spg_core.errors import CorruptStore, FitError, SpgError

# On CUDA, reading a number waits for the device, so log lines wait for each other.
_LINES_HELD_ON_CUDA = 50

Line = Mapping[str, Tensor | float | int]


class Trainer(Protocol):
    """What a checkpoint needs of a model in training."""

    def state(self) -> dict[str, Tensor]:
        """Give all that the next step depends on."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from such a state."""
        ...

    @property
    def remark(self) -> str | None:
        """What a user should know of how it trains, None if nothing."""
        ...


T = TypeVar("T", bound=Trainer)


@dataclass
class Member(Generic[T]):
    """One model in a group, its log and how far it is."""

    id: str
    place: str
    trainer: T
    log: TrainingLog
    done: int = 0
    saved: int = 0
    """Steps that its last checkpoint holds, or what was made of it."""
    error: FitError | None = None
    held: list[Line] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Note a step that was taken."""
        self.done += 1
        self.held.append(line)
        on_cuda = any(isinstance(value, Tensor) and value.is_cuda for value in line.values())
        if len(self.held) >= (_LINES_HELD_ON_CUDA if on_cuda else 1):
            self.flush()

    def flush(self) -> None:
        """Write the lines that are held, reading all their numbers from the device at once."""
        held, self.held = self.held, []
        tensors = [v for line in held for v in line.values() if isinstance(v, Tensor)]
        numbers = iter(torch.stack([t.double() for t in tensors]).tolist() if tensors else [])
        for line in held:
            self.log.add(
                {
                    name: _number(next(numbers), value) if isinstance(value, Tensor) else value
                    for name, value in line.items()
                }
            )


def _number(value: float, source: Tensor) -> float | int:
    return value if source.is_floating_point() else int(value)


def join(
    store: Objects, identifier: str, place: str, trainer: T, follow: Follow | None = None
) -> Member[T]:
    """Make a member, at its last checkpoint if it has one; a damaged one is named and left.

    A tracker may `follow` it from there.

    Raises: StoreError, ArtifactError for a checkpoint of another configuration.
    """
    done = 0
    try:
        state = load_checkpoint(store, place, like=trainer.state())
    except CorruptStore as error:
        say(f"{error}; this fit starts anew")
    else:
        if state is not None:
            trainer.load_state(state)
            done = int(state["n_steps"])
    following = None if follow is None else follow(done)
    log = TrainingLog(store, place, keep=done, following=following)
    return Member(identifier, place, trainer, log, done, done)


def say_resumed(store: Objects, members: Sequence[Member[T]], n_steps: int) -> None:
    """Say which members go on, from where and since when."""
    resumed = [member for member in members if member.done]
    if not resumed:
        return
    since = max(checkpoint_time(store, member.place) or 0.0 for member in resumed)
    at = datetime.fromtimestamp(since)
    when = f"{at:%H:%M}" if at.date() == datetime.now().date() else f"{at:%Y-%m-%d %H:%M}"
    say(f"going on from {_named(resumed, n_steps)}, checkpoint of {when}")


@contextmanager
def saved_when_stopped(
    store: Objects, members: Sequence[Member[T]], n_steps: int
) -> Iterator[None]:
    """Write a checkpoint of every member when a signal ends the block, and say where it stopped.

    Around `run`, which has closed the logs by then: no checkpoint is ahead of its log.
    """
    try:
        yield
    except (KeyboardInterrupt, Stopped):
        under_way = [one for one in members if one.error is None and one.saved < one.done]
        for member in under_way:
            try:
                save_checkpoint(store, member.place, member.trainer.state())
            except SpgError as error:  # the others are kept all the same
                say(f"{member.id}: {error}")
        if under_way:
            say(f"stopped at {_named(under_way, n_steps)}; the same command goes on from there")
        raise


def _named(members: Sequence[Member[T]], n_steps: int) -> str:
    """Say at which step members are: `step 16 of 20 (visa-..)`."""
    steps = sorted({member.done for member in members})
    at = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    who = members[0].id if len(members) == 1 else f"{len(members)} fits"
    return f"{at} of {n_steps} ({who})"
