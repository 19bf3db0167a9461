"""A configuration as it stands in a file, option by option."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The options by their dotted names, with their values as text.

    Examples:
        >>> flatten({"seed": 0, "optimizer": {"kind": "adam", "betas": [0.9, 0.99]}})
        {'seed': '0', 'optimizer.kind': 'adam', 'optimizer.betas': '[0.9, 0.99]'}
    """
    options: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            options |= flatten(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            options[f"{prefix}{key}"] = text
    return options


def find_differing(configs: Sequence[Mapping[str, str]]) -> list[str]:
    """The options that do not have the same value in all of some flattened configurations.

    Examples:
        >>> find_differing([{"seed": "0", "task": "vae"}, {"seed": "1", "task": "vae"}])
        ['seed']
    """
    options = dict.fromkeys(option for config in configs for option in config)
    return [name for name in options if len({config.get(name) for config in configs}) > 1]
