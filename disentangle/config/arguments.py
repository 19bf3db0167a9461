"""The strict argument parser of every command, with error messages of one line."""

import argparse
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import pairwise
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_loader

from disentangle.config.options import flatten
from disentangle.config.yaml_files import load_value, read_yaml

SECTIONS = {"data", "model", "discriminator", "objective", "optimizer", "training"}
COMMAND_LINE_ONLY = frozenset({"config", "overwrite", "resume"})  # not part of a run
PLAIN_YAML = "plain_yaml"  # how the parser reads values and files of options
set_loader(PLAIN_YAML, load_value, exceptions=(ValueError,))
# Text that jsonargparse reads as a number in base 60 (1:30 as 90) or base 8 (+017 as 15).
OTHER_BASE = re.compile(
    r"(?<![\w.:+-])([-+]?\d[\d_]*(:\d+)+\.?[\d_]*|(?!-?\d+\b)[-+]?0[\d_]+)(?![\w.:])"
)


def new_parser(command: str, description: str | None = None) -> ArgumentParser:
    """Return an empty parser that raises instead of exiting and accepts no abbreviations."""
    return ArgumentParser(
        prog=f"disentangle {command}",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        parser_mode=PLAIN_YAML,
    )


def parse_arguments(
    parser: ArgumentParser,
    arguments: Sequence[str],
    command_line_only: Set[str] = COMMAND_LINE_ONLY,
) -> Namespace:
    """Return the options of a command.

    Args:
        parser: Parser of the command.
        arguments: Words of the command line, without the name of the program.
        command_line_only: Options that a `--config` file must not hold.

    Raises:
        ValueError: If an option is wrong, in one line; for an unknown one, it names the nearest.

    Examples:
        >>> parser = new_parser("evaluate")
        >>> _ = parser.add_argument("--seed", type=int)
        >>> parse_arguments(parser, ["--seed", "1:30"])
        Traceback (most recent call last):
        ValueError: seed: expected a decimal number, got 1:30
    """
    given: dict[str, str] = {}  # the last one counts
    for key, text in _list_words(arguments):
        # The parser complains about a --config that is unknown, or without a file.
        if key == "config" and text and "--config" in parser._option_string_actions:
            given |= flatten(read_config_file(text, command_line_only))
        else:
            given[key] = text
    try:
        values = parser.parse_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(_one_line(str(error), parser)) from error
    for key, text in given.items():
        if OTHER_BASE.search(text) and _is_numeric(values.get(key)):
            raise ValueError(f"{key}: expected a decimal number, got {text}")
    return values


def _list_words(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each option with its text, from the words of the command line."""
    for word, following in pairwise([*arguments, ""]):
        key, equals, value = word.removeprefix("--").partition("=")
        if key != word:
            yield key, value if equals else following


def _is_numeric(value: Any) -> bool:
    """Return True for a number or a list that contains one."""
    values = value if isinstance(value, list | tuple) else [value]
    return any(type(x) in (int, float) for x in values)


def read_config_file(path: str, command_line_only: Set[str] = COMMAND_LINE_ONLY) -> dict[str, Any]:
    """Return the options in a YAML file of `--config`.

    Raises:
        ValueError: If it cannot be read, or sets an option of the command line only.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise ValueError(f"cannot read the configuration {path}: {error.strerror}") from error
    # Only the user may replace a run or read other files, not a file that someone else wrote.
    for name in sorted(command_line_only & content.keys()):
        raise ValueError(f"{path} must not hold {name}, which goes on the command line: --{name}")
    for name in sorted(SECTIONS & content.keys()):  # the parser would take text for a file to read
        if not isinstance(content[name], dict):
            raise ValueError(f"{name} must be a mapping of options, got {content[name]!r}")
    return content


def _one_line(message: str, parser: ArgumentParser) -> str:
    """Return the parser's message on one line, without type names, and with a suggestion."""
    message = " ".join(message.split())
    message = re.sub(r'Parser key "(.*?)": ', r"\1: ", message)
    message = message.replace("<class 'tuple'>", "a list such as [a, b]")
    message = re.sub(
        r"Not of type Path: expected str, bytes or os.PathLike object, not (\w+)",
        r"expected text, got \1: put it in quotes",
        message,
    )
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message)
    message = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", message)
    message = message.replace("Expected a ", "expected ").replace(". Got value: ", ", got ")
    if unknown := re.search(
        r"unrecognized arguments: --([\w.]+)|accept option '([\w.]+)'", message
    ):
        near = _nearest(unknown[1] or unknown[2], [action.dest for action in parser._actions])
        message += f"; did you mean {near}?" if near else ""
    return message


def _nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the key most similar to a word, as a whole or in its last part; None if none is."""

    def similarity(key: str) -> float:
        pairs = (word, key), (word.rpartition(".")[2], key.rpartition(".")[2])
        return max(difflib.SequenceMatcher(None, a, b).ratio() for a, b in pairs)

    best = max(known, key=similarity, default=None)
    return best if best is not None and similarity(best) > 0.75 else None
