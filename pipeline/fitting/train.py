"""Train any number of independent models on the same batches: a fit alone is a group of one.

Each batch is read, cast and ordered once and every member steps on it. Members share nothing else,
so each ends with the bits it would have alone, in any group. Each keeps its own checkpoint, so a
group that was killed may be resumed in other company; a member that is behind steps alone until
the others are reached. One that fails leaves the group with its reason.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import TypeVar

from cache.objects import Objects
from pipeline.fitting.checkpoint import save_checkpoint
from pipeline.fitting.member import Line, Member, T, say_resumed
from pipeline.machine.device import within_memory
from pipeline.terminal.progress import Advance, say
from pipeline.terminal.stopping import check_stopped, held
from spg_core.compiling import Compiler
from spg_core.errors import FitError

_SECONDS_BETWEEN_CHECKPOINTS = 60.0
# Writing checkpoints may take this share of the time.
_CHECKPOINT_SHARE = 0.05
# Arithmetic, not measured: compiling takes 20 to 40 s and saves about 1 ms a step on an H100.
_STEPS_WORTH_COMPILING = 30_000

Batch = TypeVar("Batch")


def compiler_for(n_steps: int) -> Compiler:
    """Leave short fits uncompiled: torch.compile takes seconds to minutes before the first step."""
    return "auto" if n_steps >= _STEPS_WORTH_COMPILING else "none"


def run(
    store: Objects,
    members: Sequence[Member[T]],
    batches: Callable[[int], Iterator[Batch]],
    step: Callable[[Member[T], Batch, int], Line],
    n_steps: int,
    advance: Advance,
) -> None:
    """Bring every member to step `n_steps`, or to its error.

    Args:
        store: where checkpoints go.
        members: those to train; `done` and `error` are updated.
        batches: gives the batches from a step (counted from 0 over all epochs) on.
        step: lets one member take a step (its number from 1 is given) and says what to log.
        n_steps: steps in all epochs.
        advance: called once a member and step.
    """
    advance(sum(member.done for member in members), skipped=True)
    say_resumed(store, members, n_steps)
    start = min((member.done for member in members), default=n_steps)
    try:
        with within_memory("a batch"):
            stream = batches(start) if start < n_steps else iter(())
            _take_steps(store, members, enumerate(stream, start=start), step, n_steps, advance)
    except FitError as error:  # not even the batch fits, which is everyone's
        for member in members:
            member.error = member.error or error
    finally:
        with ExitStack() as closing:  # all of them, whatever becomes of one
            for member in members:
                closing.callback(member.log.close, member.done == n_steps)
                closing.callback(member.flush)


def _take_steps(
    store: Objects,
    members: Sequence[Member[T]],
    stream: Iterator[tuple[int, Batch]],
    step: Callable[[Member[T], Batch, int], Line],
    n_steps: int,
    advance: Advance,
) -> None:
    """Have each member step on each batch once it is there, and write checkpoints now and then."""
    next_checkpoint = perf_counter() + pause_after(0.0)
    said: set[str] = set()
    for at, batch in stream:
        for member in members:
            if member.done == at and member.error is None:
                with held():
                    _attempt(member, batch, step)
                if member.error is None:
                    advance(note=_note(member))
                else:  # it takes no further steps
                    advance(n_steps - at, note=_note(member), skipped=True)
        check_stopped()
        for remark in {one.trainer.remark or "" for one in members} - {""} - said:
            say(remark)
            said.add(remark)
        if all(member.error for member in members):
            break
        began = perf_counter()
        if began > next_checkpoint and at + 1 < n_steps:
            _save(store, members, at + 1)
            next_checkpoint = perf_counter() + pause_after(perf_counter() - began)


def _attempt(
    member: Member[T], batch: Batch, step: Callable[[Member[T], Batch, int], Line]
) -> None:
    try:
        with within_memory(f"step {member.done + 1} of {member.id}"):
            line = step(member, batch, member.done + 1)
    except FitError as error:
        member.error = error
        return
    member.add(line)


def _save(store: Objects, members: Sequence[Member[T]], at: int) -> None:
    """Write a checkpoint of every member that is at this step, its log first."""
    for member in members:
        if member.error is None and member.done == at:
            try:
                state = member.trainer.state()
            except FitError as error:
                member.error = error
                continue
            member.flush()
            if not member.log.is_followed:
                member.log.save()
            save_checkpoint(store, member.place, state)
            member.saved = at


def pause_after(seconds: float) -> float:
    """Give how long to wait after a checkpoint that took so long to write."""
    return max(_SECONDS_BETWEEN_CHECKPOINTS, seconds / _CHECKPOINT_SHARE)


def _note(member: Member[T]) -> str:
    """Show the last line that is known; asking the device for a newer one would make it wait."""
    if member.error is not None:
        return f"{member.id} failed"
    last = member.log.lines[-1] if member.log.lines else {}
    shown = [f"{name} {last[name]:.3g}" for name in ("loss", "fvu", "dead") if name in last]
    return "  ".join(shown)
