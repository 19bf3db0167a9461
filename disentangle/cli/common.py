"""Helpers that the commands share."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jsonargparse import ArgumentParser

from disentangle.output.text import escape_control_characters


@contextmanager
def bad_input_exits(command: str) -> Iterator[None]:
    """Turn the error of a check into one line on the terminal and exit status 2.

    Only for the part of a command that checks and writes nothing: in the part that works, a
    `ValueError` is a defect of ours, and its traceback is wanted.
    """
    try:
        yield
    except BrokenPipeError:  # of who reads what is printed
        raise
    except (ValueError, OSError, ModuleNotFoundError) as error:
        message = escape_control_characters(" ".join(str(error).split()))
        print(f"disentangle {command}: error: {message}", file=sys.stderr)
        sys.exit(2)


def pick_device(name: str | None) -> torch.device:
    """Return the device of that name, or a GPU if there is one, or the CPU.

    Raises:
        ValueError: If there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {name!r} cannot be used here: {reason}") from error


def add_sefa_arguments(parser: ArgumentParser) -> None:
    """Add `--sefa` and its options, by which SeFa's axes take the place of a model's own."""
    parser.add_argument(
        "--sefa",
        action="store_true",
        help="Take the directions that SeFa finds in place of the model's own axes.",
    )
    parser.add_argument(
        "--sefa_layer",
        type=str,
        metavar="LAYER",
        help="Layer that takes in the latents; default: the first such layer of the model.",
    )
    parser.add_argument(
        "--sefa_normalise",
        action="store_true",
        help="Scale the weights of each output of the layer to length 1, as SeFa's code does.",
    )
