"""Parsing of the command line and YAML files into a `RunConfig`."""

import argparse
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from jsonargparse import SUPPRESS, ArgumentParser, Namespace

from disentangle.config import (
    DATA_SETS,
    FROM_MODEL,
    FROM_RUN,
    TASKS,
    OptimizerConfig,
    RunConfig,
    Task,
    TrainingConfig,
)
from disentangle.config.arguments import SECTIONS, new_parser, parse_arguments, read_config_file
from disentangle.config.choices import current_name

FILES = (
    *(("data", key) for key in ("path", "picture", "unpacked")),
    ("model", "autoencoder"),
    ("objective", "pretrained"),
)


def parse_run(arguments: Sequence[str]) -> tuple[RunConfig, Namespace]:
    """Parse a run from `--config FILE` and dotted overrides, in the order they are given.

    Args:
        arguments: Arguments of the command line, without the program's name.

    Returns:
        The run, and the options that are not part of it: `resume` and `overwrite`.

    Raises:
        ValueError: If an option is wrong; one line that says what was expected.

    Examples:
        >>> names = ["--task", "vae", "--model.name", "subspace_vae", "--data.name", "sprites"]
        >>> run, _ = parse_run([*names, "--output", "runs/x", "--training.steps", "10"])
        >>> run.training.steps, run.model["code_dim"]
        (10, 10)
    """
    task, sections = _choose_classes(arguments)
    values = parse_arguments(_build_parser(task, sections), arguments).as_dict()
    options = Namespace(resume=values.pop("resume"), overwrite=values.pop("overwrite"))
    del values["config"]
    values["task"] = current_name(values["task"])
    for section in ("objective", "optimizer", "training", *sections):
        if not isinstance(values[section], dict):
            given = values[section]
            raise ValueError(f"{section} must be a mapping of options, got {given!r}")
    for section, key in FILES:
        if isinstance(file := values[section].get(key), str | Path):
            if file == "":  # such as an unset shell variable; it would mean the current folder
                raise ValueError(f"{section}.{key} must name a file or folder, got ''")
            # A saved run may be read from another folder.
            values[section][key] = str(Path(file).absolute())
    for section, (_, cls) in sections.items():
        _check_values(cls, values[section], f"{section}.")
    for section, cls in (
        ("objective", task.objective),
        ("optimizer", OptimizerConfig),
        ("training", TrainingConfig),
    ):
        _check_values(cls, values[section], f"{section}.")
        values[section] = cls(**values[section])
    _check_values(RunConfig, values)
    return RunConfig(**values), options


def _check_values(cls: Callable[..., Any], values: Mapping[str, Any], prefix: str = "") -> None:
    """Raise for values that the parser accepts: null for any option, and a file for a section.

    Raises:
        ValueError: If an option that needs a value is null, or options were given as a file.
    """
    if "__path__" in values:
        name = prefix.removesuffix(".") or "a run"
        raise ValueError(f"{name} must be given by its options, got the file {values['__path__']}")
    for name, parameter in inspect.signature(cls).parameters.items():
        needed = type(None) not in (parameter.annotation, *get_args(parameter.annotation))
        if needed and name in values and values[name] is None:
            raise ValueError(f"{prefix}{name} must have a value, got null")


def _choose_classes(arguments: Sequence[str]) -> tuple[Task, dict[str, tuple[str, type]]]:
    """Return the task, and for each section the name and class that its `name` chooses.

    A parser of a union would report the errors of every alternative; choosing first lets the
    parser accept, and `--help` show, exactly the arguments of the chosen classes.
    """
    names = _peek_names(arguments)
    help_wanted = not {"-h", "--help"}.isdisjoint(arguments)
    if help_wanted:  # shows some default where nothing was chosen
        names = {"task": "vae", "data.name": "sprites"} | names
    task = TASKS[_choose("task", current_name(names.get("task")), TASKS)]
    if help_wanted:
        names.setdefault("model.name", next(iter(task.models)))
    choices: dict[str, Mapping[str, type]] = {"data": DATA_SETS, "model": task.models}
    if task.discriminators:
        choices["discriminator"] = task.discriminators
        names.setdefault("discriminator.name", names.get("model.name"))
    sections = {}
    for section, classes in choices.items():
        key = f"{section}.name"
        name = _choose(key, names.get(key), classes)
        sections[section] = (name, classes[name])
    return task, sections


def _peek_names(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the task and the names of the sections; later arguments override earlier ones."""
    keys = ["task", *(f"{section}.name" for section in ("data", "model", "discriminator"))]
    peeker = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for key in ["config", *keys]:
        peeker.add_argument(f"--{key}", action="append", default=[])
    try:
        peeked = vars(peeker.parse_known_args(arguments)[0])
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    names: dict[str, Any] = {}
    for path in peeked["config"]:
        content = read_config_file(path)
        names |= {key: value for key in keys if (value := _lookup(content, key)) is not None}
    return names | {key: peeked[key][-1] for key in keys if peeked[key]}


def _lookup(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _choose(key: str, name: Any, choices: Collection[str]) -> str:
    if not isinstance(name, str) or name not in choices:
        known = ", ".join(choices)
        given = "is missing" if name is None else f"has no choice {name!r}"
        raise ValueError(f"{key} {given}; choose one of: {known}")
    return name


def _build_parser(task: Task, sections: Mapping[str, tuple[str, type]]) -> ArgumentParser:
    choices = [f"task {name} has the models {', '.join(TASKS[name].models)}" for name in TASKS]
    parser = new_parser(
        "train",
        "Options of the task, model and data set that were chosen by name. "
        f"Choices: {'; '.join(choices)}; data sets: {', '.join(DATA_SETS)}.",
    )
    parser.add_argument("--config", action="config", help="A YAML file; later options override it.")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        help="Resume from a checkpoint of the run folder: `latest` (default) or `step-N`.",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="Replace the run in the folder `output`."
    )
    parser.add_class_arguments(RunConfig, skip={"data", "model", "discriminator", "objective"})
    parser.add_class_arguments(task.objective, "objective")
    for section, (name, cls) in sections.items():
        chosen_elsewhere = FROM_RUN if section == "model" else FROM_MODEL
        label = "data set" if section == "data" else section
        parser.add_class_arguments(cls, section, skip=chosen_elsewhere)
        parser.add_argument(f"--{section}.name", default=name, help=f"Name of the {label}.")
    for action in parser._actions:
        if action.dest in SECTIONS:  # the parser would offer to read it from a file of its own
            action.help = SUPPRESS
    for key in FROM_RUN:  # known, so that `RunConfig` can say where it is chosen
        parser.add_argument(f"--model.{key}", default=SUPPRESS, help=SUPPRESS)
    return parser
