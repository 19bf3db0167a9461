"""Runs that differ by chance only are one experiment: how commands group and name them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from disentangle.config import find_differing, flatten
from disentangle.orthogonality import LOSS_TECHNIQUES, OPTIMIZER_TECHNIQUES, WEIGHT_TECHNIQUES
from disentangle.training.run_folder import RunFolder

CHANCE = {"seed", "output"}  # in which two runs of the same experiment may differ
MOST_OPTIONS = 2  # by which experiments are named


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
    """Runs of the same experiment, by its techniques and, if these do not tell, what else differs.

    Experiments with the same techniques are told by the options in which they differ, if these are
    few, and by a folder if they are many.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = {key: value for key, value in run.config.items() if key not in CHANCE}
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(run)
    everyone = list(groups.values())
    techniques = [name_techniques(group[0].config) for group in everyone]
    labels = {}
    for name, group in zip(techniques, everyone, strict=True):
        alike = [
            one[0].config for one, other in zip(everyone, techniques, strict=True) if other == name
        ]
        labels[_label(name, group[0], alike)] = group
    return labels


def _label(techniques: str, run: HasConfig, alike: Sequence[Mapping[str, Any]]) -> str:
    """A name for the experiment of a run, among the configurations of those with its techniques."""
    differing = set(find_differing([flatten(config) for config in alike])) - CHANCE
    if len(differing) > MOST_OPTIONS:
        return f"{techniques}: {run.folder.path}"
    own = flatten(run.config)
    return ", ".join([techniques, *(f"{name} {own.get(name, '-')}" for name in sorted(differing))])


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
