"""Which name a mistyped one may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def near(given: object, known: Iterable[str]) -> str:
    """Give `; did you mean 'figS1'?` where a known name is like the given one, else nothing."""
    by_letters = {name.lower(): name for name in known}
    found = get_close_matches(str(given).lower(), by_letters, n=1)
    return f"; did you mean {by_letters[found[0]]!r}?" if found else ""
