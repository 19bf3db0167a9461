"""Strict reading and writing of YAML options, for files from untrusted sources."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 2**18  # of a file; a configuration has about a hundredth of it
MOST_VALUES = 10_000  # with those that aliases repeat, which can be exponentially many
DEEPEST = 20  # mappings and lists within each other

# Plain words that are not text. As in YAML 1.2, 1:30 is not a base-60 number, 017 not an octal one,
# and 1e3 is a number; as in YAML 1.1, so are 1_000 and 0b11.
PLAIN_WORDS = {
    f"tag:yaml.org,2002:{kind}": re.compile(f"(?:{pattern})$")
    for kind, pattern in {
        "bool": "true|True|TRUE|false|False|FALSE",
        "int": "[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)",
        "float": r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)"
        r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "null": "~|null|Null|NULL|",
        "merge": "<<",
    }.items()
}
AMBIGUOUS = re.compile("[-+]?0[0-9_]+$|.*:")  # after !!int or !!float: in base 8, 10 or 60


def read_yaml(file: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Stricter than `yaml.safe_load`, which takes the last of several values of a key, lets aliases
    multiply without limit, fails on some input with errors that are not YAML errors, and reads
    1:30 as 90, 017 as 15 and no as false, which are text here.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is too large, is not YAML of plain values, or holds no mapping; if a key
            is repeated or is not text; if a tag asks for a Python object.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as stream:
        ...     _ = stream.write("training: {steps: 5}")
        ...     stream.flush()
        ...     read_yaml(stream.name)
        {'training': {'steps': 5}}
    """
    with open(file, "rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{file} must have {MOST_BYTES} bytes at most")
    try:
        value = _load(content.decode("utf-8"), str(file))
    # PyYAML's constructors raise errors of many types, AttributeError and IndexError among them.
    except Exception as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file} must hold a mapping of options, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    return "an empty file" if value is None else type(value).__name__


class _PlainLoader(yaml.SafeLoader):
    """Loader with `PLAIN_WORDS`, without deep nesting, and with unique keys that are text."""

    yaml_implicit_resolvers = {None: list(PLAIN_WORDS.items())}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return a node with its children."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"it must not be nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode):
            node.value.encode("utf-8")  # raises for a lone surrogate
            if node.tag.endswith((":int", ":float")) and AMBIGUOUS.match(node.value):
                raise ValueError(f"{node.value!r} must be a decimal number without a tag")
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of a node, merge keys (`<<`) included."""
        own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in own if own.count(key) > 1]:
            raise ValueError(f"the key {twice[0]!r} is repeated")
        mapping = super().construct_mapping(node, deep=deep)
        if wrong := [key for key in mapping if not isinstance(key, str)]:
            raise ValueError(f"its keys must be text, got {wrong[0]!r}")
        return mapping


class _PlainDumper(yaml.SafeDumper):
    """Dumper that quotes text which `_PlainLoader` or YAML 1.1 would read as something else."""


for _tag, _pattern in PLAIN_WORDS.items():
    _PlainDumper.add_implicit_resolver(_tag, _pattern, None)


def dump_yaml(value: Any) -> str:
    """Return YAML that `read_yaml` and any reader of YAML 1.1 read back as the same value.

    Examples:
        >>> print(dump_yaml({"output": "1e3", "lr": 1e-5}), end="")
        output: '1e3'
        lr: 1.0e-05
    """
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False)


def load_value(text: str) -> Any:
    """Return the value of an option given as text, or the content of a file of options.

    A lone yes, no, on or off is a Boolean; in a list or a mapping it is text, which the parser
    converts itself where an option takes a Boolean.

    Raises:
        ValueError: If it is not YAML of plain values.

    Examples:
        >>> load_value("yes"), load_value("[yes, 1:30, 017, 1e3, 1_000]")
        (True, ['yes', '1:30', '017', 1000.0, 1000])
    """
    if (word := text.strip().lower()) in yaml.SafeLoader.bool_values:
        return yaml.SafeLoader.bool_values[word]
    try:
        return _load(text, "the value")
    except Exception as error:
        raise ValueError(" ".join(str(error).split())) from error


def _load(text: str, name: str) -> Any:
    loader = _PlainLoader(text)
    loader.name = name  # for messages
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MOST_VALUES:
            raise ValueError(f"it must not have more than {MOST_VALUES} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values in a node, those of an alias each time; `known` caches counts of nodes."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES  # in case it contains itself
        entries = node.value
        children = (
            [n for pair in entries for n in pair] if isinstance(node, yaml.MappingNode) else entries
        )
        known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return known[id(node)]
