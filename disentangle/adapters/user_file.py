"""A generator that a user's own Python file makes."""

import sys
from pathlib import Path
from runpy import run_path

from torch import nn

from disentangle.models import Generator


def load_generator_from(source: str) -> Generator:
    """The generator of that name in a Python file, which is run.

    Modules beside the file can be imported by it. A generator that is a module is put into
    evaluation mode.

    Args:
        source: `FILE.py:NAME`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the source is not of that form, the file fails, or what has the name is no
            generator.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        ...     _ = file.write("import disentangle.models as m; G = m.SimpleGAN()")
        ...     file.flush()
        ...     load_generator_from(f"{file.name}:G").latent_dim
        30
    """
    path, _, name = source.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise ValueError(f"a generator must be given as FILE.py:NAME, got {source!r}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    found = _run(Path(path))
    if name not in found:
        named = ", ".join(key for key, value in found.items() if isinstance(value, Generator))
        raise ValueError(f"{path} makes no {name!r}; its generators are {named or 'none'}")
    generator = found[name]
    if isinstance(generator, type) or not isinstance(generator, Generator):
        raise ValueError(
            f"{source} must be a generator, as disentangle.adapters.adapt makes one of any module "
            f"or function, got {type(generator).__name__}"
        )
    return generator.eval() if isinstance(generator, nn.Module) else generator


def _run(file: Path) -> dict[str, object]:
    """Run a file and return its global names."""
    beside = str(file.parent.resolve())
    sys.path.insert(0, beside)
    try:
        return run_path(str(file), run_name=file.stem)
    except SystemExit as error:
        raise ValueError(
            f"{file} ends the program: keep what it does as a program under "
            'if __name__ == "__main__"'
        ) from error
    except Exception as error:  # a user's code may raise anything
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} fails with {type(error).__name__}: {reason}") from error
    finally:
        if beside in sys.path:  # the file may have changed it
            sys.path.remove(beside)
