"""Runs that differ by chance only are one experiment: how commands group and name them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from disentangle.orthogonality import LOSS_TECHNIQUES, OPTIMIZER_TECHNIQUES, WEIGHT_TECHNIQUES
from disentangle.training.run_folder import RunFolder

CHANCE = {"seed", "output"}  # in which two runs of the same experiment may differ


class HasConfig(Protocol):
    """A run, whatever else is known of it."""

    @property
    def folder(self) -> RunFolder:
        """The run's."""

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration, as it stands in the file."""


Run = TypeVar("Run", bound=HasConfig)


def group_by_experiment(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of the same experiment, by its techniques, with a folder if these do not tell."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = {key: value for key, value in run.config.items() if key not in CHANCE}
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(run)
    techniques = [name_techniques(group[0].config) for group in groups.values()]
    return {
        name if techniques.count(name) == 1 else f"{name}: {group[0].folder.path}": group
        for name, group in zip(techniques, groups.values(), strict=True)
    }


def name_techniques(config: Mapping[str, Any]) -> str:
    """The techniques of a run as papers write them.

    Examples:
        >>> name_techniques({"orthogonality": ["olr", "nog", "ow"]})
        'OW + NOG + OLR'
        >>> name_techniques({"orthogonality": []})
        'no technique'
    """
    order = (*WEIGHT_TECHNIQUES, *OPTIMIZER_TECHNIQUES, *LOSS_TECHNIQUES)
    named = config.get("orthogonality") or ()
    return " + ".join(name.upper() for name in order if name in named) or "no technique"
