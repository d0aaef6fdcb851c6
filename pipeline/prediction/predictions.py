"""What is said of several images, at hand in a notebook."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.prediction.predict import Prediction
from pipeline.tables.frames import to_frame

if TYPE_CHECKING:
    from pandas import DataFrame


class Predictions(list[Prediction]):
    """A prediction an image, in the order asked."""

    def __init__(self, found: Iterable[Prediction] = ()) -> None:
        super().__init__(found)

    def __repr__(self) -> str:
        failed = sum(one.error is not None for one in self)
        anomalous = sum(one.verdict == "anomalous" for one in self)
        said = f"{len(self)} predictions: {anomalous} anomalous, {failed} failed"
        return f"{said}; to_pandas() gives them"

    def to_pandas(self) -> "DataFrame":
        """Give a row an image as a pandas DataFrame."""
        return to_frame([asdict(one) for one in self])
