"""What a reader of a sweep's table would be fooled by, said once for all of its points."""

from collections.abc import Sequence

from pipeline.artifacts.terms import Row
from pipeline.fitting.start_remark import remark_start
from pipeline.scoring.chance import CHANCE
from pipeline.sweep.grid import Point
from pipeline.tables.metrics import percent
from pipeline.terminal.printable import counted
from pipeline.terminal.progress import say


def remark_points(points: Sequence[Point], rows: Sequence[Row]) -> None:
    """Say where averages still hold their start, and where images rank worse than by chance."""
    averaged = [
        row.get("ema_start_share")
        for point, row in zip(points, rows, strict=True)
        if point.score.coefficients == "ema"
    ]
    remark_start([share for share in averaged if isinstance(share, float)])
    found = [value for row in rows if isinstance(value := row.get("image_auroc"), float)]
    below = [value for value in found if value < CHANCE]
    if below:
        least = f"{percent(min(below))} %"
        say(
            f"remark: image AUROC is below chance in {len(below)} of {counted(len(found), 'point')}"
            f", down to {least}; `score --guides ID` of one says which pooling may help"
        )
