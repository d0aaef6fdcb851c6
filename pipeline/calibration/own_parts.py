"""Own images: folders of parts that an engineer knows to be good, or bad; judged as by predict."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from manifests.images import decode_image, read_bytes
from pipeline.artifacts.notes import CalibratedOn
from pipeline.calibration.known_parts import KnownParts, held_images
from pipeline.configs import CalibrateSource, PredictConfig, ScoreConfig
from pipeline.detection.find import AnyDetector
from pipeline.prediction.familiar import Learner
from pipeline.prediction.inputs import Listed, find_images
from pipeline.prediction.look import Look
from pipeline.prediction.predict import Seen, predict
from pipeline.terminal.progress import bar, say
from spg_core.errors import DatasetError

Paths = dict[str, str]
"""By the SHA-256 of the file's bytes."""
_NAMED = 3
"""Files named in a message; the others are counted."""


def own_parts(guides: AnyDetector, scoring: ScoreConfig, source: CalibrateSource) -> KnownParts:
    """Find the images that `--good` and `--bad` mean; nothing is scored yet.

    Raises: DatasetError for what is not there or cannot be meant.
    """
    good, bad = _read("--good", source.good), _read("--bad", source.bad)
    own = _unseen(guides, good, bad)
    told = CalibratedOn(
        cache=None,
        split=None,
        categories=list(source.category),
        good=sorted(own),
        bad=sorted(bad),
        is_auxiliary=False,
    )
    paths = [*own.values(), *bad.values()]
    labels = np.arange(len(paths)) >= len(own)
    [category] = source.category or (None,)
    config = PredictConfig(weights=source.weights, category=category, threshold=0.5)
    learner = Learner()
    takes = _takes(learner, frozenset(own.values()))
    score = partial(_judge, guides, paths, scoring, config, takes)
    return KnownParts(labels, [], told, score, learner)


def _takes(learner: Learner, good: frozenset[str]) -> Seen:
    """Let the good ones be learned as they are judged."""

    def take(path: str, look: Look, tokens: Tensor) -> None:
        if path in good:
            learner.add(tokens, look.aspect, look)

    return take


def _unseen(guides: AnyDetector, good: Paths, bad: Paths) -> Paths:
    """Give the good images that no memory holds.

    Raises: DatasetError where none is left, for a bad one that a memory holds, and for one that is
        good and bad.
    """
    if both := good.keys() & bad.keys():
        pairs = [f"{good[one]} is {bad[one]}" for one in both]
        raise DatasetError(f"the same image is good and bad: {_some(sorted(pairs))}; which is it?")
    held = held_images(guides)
    if remembered := [path for digest, path in bad.items() if digest in held]:
        raise DatasetError(
            f"{guides.id} holds images of --bad as normal: {_some(remembered)}; make another memory"
        )
    own = {digest: path for digest, path in good.items() if digest not in held}
    if len(own) < len(good):
        say(f"{len(good) - len(own)} of --good are in the memory itself and left out")
    if not own:
        raise DatasetError(
            f"no image of --good is left of {len(good)}: all are in the memory {guides.id}, and "
            "would look normal to it; give other good parts"
        )
    return own


def _read(option: str, arguments: Sequence[str]) -> Paths:
    """Give the images that arguments name; what cannot be used is said and left out.

    Raises: DatasetError for what is not there, and where nothing is left.
    """
    listed = find_images(arguments)
    if missing := [one.error for one in listed if one.is_missing and one.error]:
        raise DatasetError(f"{option}: {_some(missing)}")
    found: Paths = {}
    again, sizes = 0, Counter[tuple[int, int]]()
    broken = [one.error for one in listed if one.error is not None]
    for path in (one.path for one in listed if one.error is None):
        try:
            data = read_bytes(Path(path))
            image = decode_image(data, path)
        except DatasetError as error:
            broken.append(str(error))
            continue
        digest = hashlib.sha256(data).hexdigest()
        again += digest in found
        if found.setdefault(digest, path) == path:
            sizes[image.size] += 1
    if arguments and not found:
        raise DatasetError(f"{option}: none of {len(listed)} images can be used; {broken[0]}")
    if broken:
        say(f"{option}: {len(broken)} of {len(listed)} images are left out: {_some(broken)}")
    if again:
        say(f"{option}: {again} are copies of others, byte for byte, and count once")
    if len(sizes) > 1:
        told = ", ".join(f"{n} of {w} x {h}" for (w, h), n in sizes.most_common(_NAMED))
        say(f"remark: {option}: images of {len(sizes)} sizes ({told}, ..); are all of one camera?")
    return found


def _judge(
    guides: AnyDetector,
    paths: Sequence[str],
    scoring: ScoreConfig,
    config: PredictConfig,
    takes: Seen,
) -> NDArray[np.float32]:
    """Score images as `predict` does. Raises: DatasetError where one cannot be, and as predict."""
    scores = np.empty(len(paths), np.float32)
    judged = predict(guides, [Listed(path) for path in paths], scoring, config, takes)
    with bar("Judging", len(paths)) as advance:
        for at, one in enumerate(judged):
            if one.score is None:
                raise DatasetError(f"{one.error}; take it out and calibrate again")
            scores[at] = one.score
            advance()
    return scores


def _some(texts: Sequence[str]) -> str:
    """Name the first few of some things, and count the rest."""
    more = f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return "; ".join(texts[:_NAMED]) + more
