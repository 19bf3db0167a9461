"""Runs that differ by chance only are one experiment: how commands group and name them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from disentangle.config import find_differing, flatten
from disentangle.orthogonality import LOSS_TECHNIQUES, OPTIMIZER_TECHNIQUES, WEIGHT_TECHNIQUES
from disentangle.output.text import cut, escape_control_characters
from disentangle.runs.run import Run

CHANCE = {"seed", "output"}  # in which two runs of the same experiment may differ
MOST_OPTIONS = 2  # by which experiments are named
NAMES = {"task", "model.name", "data.name"}  # another one comes with many other options


def group_by_experiment(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Group runs by experiment: its techniques and, if these do not tell, what else differs.

    Experiments with the same techniques are told by the options in which they differ, or of many by
    the names of task, model and data; if that does not tell them, by the name of a run, which no
    other run may have.
    """
    groups: dict[tuple[str, frozenset[tuple[str, str]]], list[Run]] = {}
    for run in runs:
        same = frozenset(_choose_options(run.raw_config).items())
        groups.setdefault((name_techniques(run.raw_config), same), []).append(run)
    techniques = [name for name, _ in groups]
    configs = [dict(same) for _, same in groups]
    labels = [
        _describe(name, own, [c for c, n in zip(configs, techniques, strict=True) if n == name])
        for name, own in zip(techniques, configs, strict=True)
    ]
    told = {label for label, count in Counter(labels).items() if count == 1 and label is not None}
    named = {}
    for name, label, group in zip(techniques, labels, groups.values(), strict=True):
        named[label if label in told else f"{name}: {_quote(group[0].name)}"] = group
    return named


def _choose_options(config: Mapping[str, Any]) -> dict[str, str]:
    """The options that make an experiment what it is."""
    return flatten({key: value for key, value in config.items() if key not in CHANCE})


def _describe(
    techniques: str, own: Mapping[str, str], alike: Sequence[Mapping[str, str]]
) -> str | None:
    """An experiment among those with its techniques; None if too many options differ."""
    differing = sorted(find_differing(alike))
    if len(differing) > MOST_OPTIONS:
        differing = [name for name in differing if name in NAMES]
    if len(alike) > 1 and not differing:
        return None
    values = [f"{cut(_quote(name))} {cut(_quote(own.get(name, '-')))}" for name in differing]
    return ", ".join([techniques, *values])


def _quote(text: str) -> str:
    r"""A text as the end of a label, in which no two texts look alike.

    Labels are followed by numbers of runs in parentheses: nothing else may end with one.

    Examples:
        >>> print(_quote("a"), _quote("a\nb"), _quote(r"a\nb"), _quote("a (2 runs)"))
        a a\nb a\\nb "a (2 runs)"
    """
    shown = escape_control_characters(text.replace("\\", r"\\"))
    return f'"{shown}"' if shown.endswith(")") or shown.startswith('"') else shown


def name_techniques(config: Mapping[str, Any]) -> str:
    """The techniques of a run as papers write them.

    Examples:
        >>> name_techniques({"orthogonality": ["olr", "nog", "ow"]})
        'OW + NOG + OLR'
        >>> name_techniques({"orthogonality": ["nou", "ow_kernel"]})
        'OW KERNEL + NOU'
        >>> name_techniques({"orthogonality": []})
        'no technique'
    """
    order = (*WEIGHT_TECHNIQUES, *OPTIMIZER_TECHNIQUES, *LOSS_TECHNIQUES)
    named = config.get("orthogonality") or ()
    names = [name.upper().replace("_", " ") for name in order if name in named]
    return " + ".join(names) or "no technique"
