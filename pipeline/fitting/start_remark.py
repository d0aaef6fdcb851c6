"""Say aloud where averaged coefficients are still mostly what they were drawn as."""

from collections.abc import Sequence

from pipeline.artifacts.told import STILL_DENSE
from pipeline.terminal.printable import counted
from pipeline.terminal.progress import say


def remark_start(shares: Sequence[float]) -> None:
    """Say in one line how many averages hold how much of their start; nothing where none does.

    Args:
        shares: of the start in the average of each pair of guides that is scored by it, in [0, 1].
    """
    dense = [share for share in shares if share > STILL_DENSE]
    if not dense:
        return
    of = "" if len(shares) == 1 else f" of {len(dense)} of {counted(len(shares), 'fit')}"
    least = "" if min(dense) == max(dense) else f"{min(dense):.0%} to "
    say(
        f"remark: the averaged coefficients{of} still hold {least}{max(dense):.0%} of their random "
        "start, so they stay dense; more epochs of guides let it go"
    )
