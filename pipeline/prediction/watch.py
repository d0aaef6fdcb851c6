"""Watch a folder: judge the images in it, then those that arrive, until somebody stops it.

The folder is listed twice a second. Notifications of the system would be quicker by that, but none
come from other machines through NFS or SMB, which is how cameras deliver; and a listing cannot lose
one. A file is taken once it has the size and time it had at the last listing. One that cannot be
decoded may still be on its way: it is an error only after it has stayed as it is for some seconds.

What is remembered is a few numbers for each file that is there; of files that are gone, nothing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manifests.paths import walk_pictures
from manifests.problems import Problem
from pipeline.configs import PredictConfig, ScoreConfig
from pipeline.detection.find import AnyDetector
from pipeline.prediction.inputs import Listed, is_picture_of_ours
from pipeline.prediction.pictures import check_pictures, output_names, with_room_for_pictures
from pipeline.prediction.predict import Judge, Named, Prediction, check_out, open_judge
from pipeline.terminal.progress import say
from spg_core.errors import DatasetError, StoreError

EVERY: Final = 0.5
"""Seconds between two listings."""
PATIENCE: Final = 5.0
"""Seconds that a file which cannot be decoded must stay as it is, to be called broken."""
AT_ONCE: Final = 64
"""Images that are judged before the folder is listed again."""

State = tuple[int, int, int]
"""Size, time and inode of a file: another one, and it was written or replaced."""


@dataclass
class _File:
    """What is remembered of a file that is there."""

    state: State
    since: float
    """When it was first seen in this state, on a clock that only goes forward."""
    is_done: bool = False
    was_tried: bool = False
    """Whether it could not be decoded."""


class Folder:
    """A folder that is watched: which of its images are to be judged now.

    Args:
        path: of the folder.
        now: a clock in seconds.
    """

    def __init__(self, path: str, now: Callable[[], float] = time.monotonic) -> None:
        self.path = Path(path)
        self._now = now
        self._files: dict[str, _File] = {}
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self._files)

    def ready(self) -> list[str]:
        """List the folder; give, in order, images that are whole as far as one can see."""
        now, before = self._now(), self._files
        self._files = {}
        problems: list[Problem] = []
        for name in walk_pictures(self.path, problems):
            path = str(self.path / name)
            if is_picture_of_ours(path):
                continue
            with suppress(OSError):  # gone again
                state = _state_of(path)
                known = before.get(path)
                self._files[path] = (
                    known if known is not None and known.state == state else _File(state, now)
                )
        self._tell(problems)
        if any(one.kind == "unreadable folder" for one in problems):
            # a share that is away for a while: what was in it is not new when it is back
            self._files = {path: one for path, one in before.items() if one.is_done} | self._files
        return [path for path, one in self._files.items() if self._is_ready(one, now)]

    def _tell(self, problems: list[Problem]) -> None:
        """Say once what is in the folder and cannot be judged."""
        found = {f"{one.kind}: {one}" for one in problems}
        for text in sorted(found - self._told):
            say(f"remark: {self.path}: {text}")
        self._told = found

    def _is_ready(self, one: _File, now: float) -> bool:
        is_doubtful = one.was_tried or not one.state[0]
        return not one.is_done and now - one.since >= (PATIENCE if is_doubtful else EVERY)

    def done(self, path: str, error: str | None) -> bool:
        """Note what became of an image; False for an error that is not to be told yet."""
        one, now = self._files.get(path), self._now()
        if one is None:
            return error is None
        with suppress(OSError):
            if _state_of(path) != one.state:  # written to while it was read: once more
                return error is None
        if error is not None and now - one.since < PATIENCE:
            one.was_tried = True
            return False
        one.is_done = True
        return True


def _state_of(path: str) -> State:
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def watch(
    guides: AnyDetector, folder: str, scoring: ScoreConfig, config: PredictConfig
) -> Iterator[Prediction]:
    """Judge the images of a folder and those that arrive, until Ctrl-C or SIGTERM.

    Raises: DatasetError for no folder; else as `predict`, before the first image.
    """
    if not Path(folder).is_dir():
        raise DatasetError(f"--watch {folder}: no such folder")
    check_out(config)
    return _watched(Folder(folder), open_judge(guides, scoring, config))


def _watched(folder: Folder, judge: Judge) -> Iterator[Prediction]:
    try:
        say(f"watching {folder.path}; Ctrl-C ends it")
        with judge.pool() as pool:
            while True:
                ready = folder.ready()[:AT_ONCE]
                for one in judge.predictions(pool, _named(folder, ready, judge.config.out)):
                    if folder.done(one.path, one.error):
                        yield one
                if not ready:
                    time.sleep(EVERY)
    except KeyboardInterrupt:
        return


def _named(folder: Folder, paths: list[str], out: str | None) -> list[Named]:
    """Give images with their pictures' names; one whose pictures have no place is an error."""
    listed = [Listed(path) for path in paths]
    names = output_names(listed, str(folder.path.absolute()))
    if out is None:
        return list(zip(listed, names, strict=True))
    found = []
    for one, name in zip(with_room_for_pictures(listed), names, strict=True):
        try:
            check_pictures([one], [name], Path(out))
            found.append((one, name))
        except StoreError as error:
            found.append((Listed(one.path, str(error)), name))
    return found
