"""Records as a pandas DataFrame, for those who have pandas."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spg_core.errors import SpgError

if TYPE_CHECKING:
    from pandas import DataFrame


def to_frame(records: Sequence[Mapping[str, object]]) -> "DataFrame":
    """Give a DataFrame with a row a record. Raises: SpgError where there is no pandas."""
    try:
        import pandas
    except ImportError:
        raise SpgError("to_pandas needs pandas; `pip install pandas`") from None
    return pandas.DataFrame([dict(record) for record in records])
