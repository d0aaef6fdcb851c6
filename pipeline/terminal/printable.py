"""Text for people, of which no part can command the terminal or stop the printing."""


def printable(text: str) -> str:
    """Return the text with escapes for what a terminal would obey, hide or could not encode.

    Names of files, folders, categories and keys come from anywhere: a control character in one
    could clear the screen or write over a verdict, a change of direction could show it backwards,
    and a lone surrogate (bytes that are not UTF-8) cannot be printed at all. Line ends stay.
    """
    return "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text)


def printable_line(text: str) -> str:
    """Return a name likewise, on one line."""
    return printable(text).replace("\n", "\\n")


def counted(number: int, one: str, many: str | None = None) -> str:
    """Say how many there are: `1 image`, `2 images`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
