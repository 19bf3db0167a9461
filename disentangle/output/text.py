"""Text from anywhere, such as names in the files of others, for terminals, tables and pictures."""


def escape_control_characters(text: str) -> str:
    """Text without what a terminal would obey, or could not show: escapes in its place.

    Examples:
        >>> escape_control_characters("größer" + chr(27)).isprintable()
        True
        >>> escape_control_characters("größer")
        'größer'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, most: int = 40) -> str:
    """The beginning of a text that is longer than so many letters.

    Examples:
        >>> cut("a long name", 6), cut("short")
        ('a lon…', 'short')
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"
