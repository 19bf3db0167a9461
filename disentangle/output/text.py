"""Untrusted text, such as names in files, for terminals, tables and pictures."""


def escape_control_characters(text: str) -> str:
    """Replace control and other non-printable characters with escape sequences.

    Examples:
        >>> escape_control_characters("größer" + chr(27)).isprintable()
        True
        >>> escape_control_characters("größer")
        'größer'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, most: int = 40) -> str:
    """Truncate a text to at most `most` characters.

    Examples:
        >>> cut("a long name", 6), cut("short")
        ('a lon…', 'short')
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"
