"""Options of a saved configuration by dotted name."""

import json
from collections.abc import Mapping, Sequence, Set
from typing import Any

SETS = {"orthogonality"}  # options whose values are lists, but have no order
WHOLE = 2**63  # below this, a float without a fraction is written as an integer, with all digits


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the options by their dotted names, with their values as text.

    Equal values give the same text: 1 and 1.0, and techniques in any order.

    Examples:
        >>> flatten({"seed": 0, "optimizer": {"kind": "adam", "betas": [0.0, 0.99]}})
        {'seed': '0', 'optimizer.kind': 'adam', 'optimizer.betas': '[0, 0.99]'}
        >>> flatten({"orthogonality": ["olr", "nog"]})
        {'orthogonality': '["nog", "olr"]'}
    """
    options: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            options |= flatten(value, f"{name}.")
        else:
            is_set = name in SETS and isinstance(value, list)
            options[name] = _as_text(sorted(value, key=str) if is_set else value)
    return options


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(_unify(value), default=str, sort_keys=True, ensure_ascii=False)


def _unify(value: Any) -> Any:
    """Return a value with every float that equals an integer replaced by it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < WHOLE:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _unify(item) for key, item in value.items()}
    return [_unify(item) for item in value] if isinstance(value, list | tuple) else value


def find_changes(
    saved: Mapping[str, Any], current: Mapping[str, Any], ignored: Set[str]
) -> dict[str, tuple[str, str]]:
    """Return the options with another value than was saved, each with both values as text.

    Options that only one of the two configurations has do not count.

    Examples:
        >>> find_changes({"seed": 0, "output": "a"}, {"seed": 1, "output": "b"}, {"output"})
        {'seed': ('0', '1')}
    """
    then, now = flatten(saved), flatten(current)
    known = (then.keys() & now.keys()) - ignored
    return {name: (then[name], now[name]) for name in find_differing([then, now]) if name in known}


def find_differing(configs: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the options whose values differ between flattened configurations.

    Examples:
        >>> find_differing([{"seed": "0", "task": "vae"}, {"seed": "1", "task": "vae"}])
        ['seed']
    """
    options = dict.fromkeys(option for config in configs for option in config)
    return [name for name in options if len({config.get(name) for config in configs}) > 1]
