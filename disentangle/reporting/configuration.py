"""Configuration of the runs of a report: options that differ, and options that all share."""

from collections.abc import Mapping

from disentangle.config import find_differing, flatten
from disentangle.reporting.document import Block, Section, Table, Tables
from disentangle.reporting.runs import Groups
from disentangle.runs.experiments import CHANCE

TOP = "run"  # heading of the options outside any section


def list_configuration(groups: Groups) -> Section:
    """List the options in which experiments differ, and those that all share.

    Runs of the same experiment differ in their seed and folder only, which stand elsewhere.
    """
    configs = {label: flatten(runs[0].raw_config) for label, runs in groups.items()}
    if sum(map(len, groups.values())) > 1:
        configs = {
            label: {option: value for option, value in config.items() if option not in CHANCE}
            for label, config in configs.items()
        }
    differing = find_differing(list(configs.values()))
    blocks: list[Block] = []
    if differing:
        rows = [
            [option, *(config.get(option, "") for config in configs.values())]
            for option in differing
        ]
        blocks.append(Table(["option", *configs], rows, "What differs between the experiments"))
    first = next(iter(configs.values()))
    shared = {option: value for option, value in first.items() if option not in differing}
    return Section("Configuration", [*blocks, Tables(_divide(shared))])


def _divide(options: Mapping[str, str]) -> list[Table]:
    """Return a table for each section of the configuration."""
    sections: dict[str, list[list[str]]] = {TOP: []}
    for option, value in options.items():
        section, dot, rest = option.partition(".")
        name, key = (section, rest) if dot else (TOP, section)
        sections.setdefault(name, []).append([key, value])
    return [Table([name, "value"], rows) for name, rows in sections.items() if rows]
