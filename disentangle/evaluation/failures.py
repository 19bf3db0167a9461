"""What went wrong, in one line."""


class SharedError(RuntimeError):
    """What went wrong in one process, as all of them are told; the message is the description."""


def describe_error(error: Exception) -> str:
    """The first line of an error's message, after its kind unless that is bad input.

    Examples:
        >>> describe_error(ValueError("bins must be at least 2"))
        'bins must be at least 2'
        >>> describe_error(OSError("no space left"))
        'OSError: no space left'
        >>> describe_error(MemoryError())
        'MemoryError'
    """
    line = next(iter(str(error).strip().splitlines()), "")
    if line and isinstance(error, ValueError | SharedError):
        return line
    return ": ".join(filter(None, (type(error).__name__, line)))
