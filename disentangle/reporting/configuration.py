"""The configuration of the runs of a report: what they share, and in what experiments differ."""

import json
from collections.abc import Mapping
from typing import Any

from disentangle.experiments import CHANCE
from disentangle.reporting.document import Block, Section, Table, Tables
from disentangle.reporting.runs import Groups

TOP = "run"  # how options outside any section are headed


def list_configuration(groups: Groups) -> Section:
    """A table of the options in which experiments differ, and small ones of those that all share.

    Runs of the same experiment differ in their seed and folder only, which stand elsewhere.
    """
    configs = {label: flatten(runs[0].config) for label, runs in groups.items()}
    options = dict.fromkeys(option for config in configs.values() for option in config)
    values = {option: [config.get(option) for config in configs.values()] for option in options}
    several = sum(map(len, groups.values())) > 1
    kept = [option for option in options if not (several and option in CHANCE)]
    differing = [option for option in kept if len(set(values[option])) > 1]
    blocks: list[Block] = []
    if differing:
        rows = [[option, *(value or "" for value in values[option])] for option in differing]
        blocks.append(Table(["option", *configs], rows, "What differs between the experiments"))
    shared = {option: values[option][0] or "" for option in kept if option not in differing}
    return Section("Configuration", [*blocks, Tables(_divide(shared))])


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


def _divide(options: Mapping[str, str]) -> list[Table]:
    """A table for each section of the configuration."""
    sections: dict[str, list[list[str]]] = {TOP: []}
    for option, value in options.items():
        section, dot, rest = option.partition(".")
        name, key = (section, rest) if dot else (TOP, section)
        sections.setdefault(name, []).append([key, value])
    return [Table([name, "value"], rows) for name, rows in sections.items() if rows]
