"""`disentangle data|train|evaluate|compare|traverse …`, the same as `python -m disentangle …`."""

import importlib
import io
import os
import signal
import sys

from disentangle import __version__

COMMANDS = {
    "data": "show what a data set holds, as a picture and as a table",
    "train": "train a model as a configuration says",
    "evaluate": "score the models of runs, or codes of your own",
    "compare": "put the scores of runs side by side, mean ± deviation over seeds",
    "traverse": "draw the latent traversals of a run's model",
    "explore": "write a page on which the axes of a run, or of two, are moved",
    "plot-conditioning": "draw how well conditioned the layers of runs were",
    "plot-activeness": "draw how much each subspace of runs changed the image",
    "report": "write one file about runs: configuration, scores, curves, traversals",
}
MODULES = {"data": "show_data"}  # `disentangle.data` is the package of the data sets


def main() -> None:
    """Runs a command; whoever interrupts it, or reads no further, need not see where it was."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            hand_over()
        finally:
            if sys.stdout is not None:  # as it is if it was closed
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # as of `| head -1`
        # Or Python would try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def hand_over() -> None:
    """Hands over to a command; imports it, and PyTorch with it, only then."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        module_name = MODULES.get(name, name.replace("-", "_"))
        module = importlib.import_module(f"disentangle.{module_name}")
        sys.exit(module.main(arguments))
    if name == "--version":
        print(f"disentangle {__version__}")
    elif name in ("-h", "--help"):
        print("usage: disentangle COMMAND …   (disentangle COMMAND --help tells more)\n")
        width = max(map(len, COMMANDS))
        for command, description in COMMANDS.items():
            print(f"  {command:<{width}}  {description}")
    else:
        known = ", ".join(COMMANDS)
        print(f"disentangle: error: no command {name!r}; choose one of: {known}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
