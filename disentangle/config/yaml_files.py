"""YAML files of options, which may come from anyone: small, plain and unambiguous."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 2**18  # of a file; a configuration has about a hundredth of it
MOST_VALUES = 10_000  # with those that aliases repeat, which can be exponentially many
DEEPEST = 20  # mappings and lists within each other


def read_yaml(file: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Stricter than `yaml.safe_load`, which takes the last of several values of a key, lets aliases
    multiply without limit and fails on some input with errors that are none of YAML's.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is too large, is not YAML of plain values, or holds no mapping; if a key
            is there twice or is no text; if a tag asks for a Python object.

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
        raise ValueError(f"{file} must hold a mapping of options, got {type(value).__name__}")
    return value


class _PlainLoader(yaml.SafeLoader):
    """Text where YAML 1.1 sees a date; no deep nesting; keys that are text, each once."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node with all that is in it."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"it must not be nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode):
            node.value.encode("utf-8")  # an escape can stand for half a character
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of a node, merge keys (`<<`) included."""
        own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in own if own.count(key) > 1]:
            raise ValueError(f"the key {twice[0]!r} is there twice")
        mapping = super().construct_mapping(node, deep=deep)
        if wrong := [key for key in mapping if not isinstance(key, str)]:
            raise ValueError(f"its keys must be text, got {wrong[0]!r}")
        return mapping


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
    """The values in a node, those behind an alias each time; `known` has those of other nodes."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES  # if it holds itself, which has no end
        entries = node.value
        children = (
            [n for pair in entries for n in pair] if isinstance(node, yaml.MappingNode) else entries
        )
        known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return known[id(node)]
