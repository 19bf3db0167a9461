"""Pickles that hold arrays and plain Python values, read without running anything in them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

# What NumPy writes for an array; `_reconstruct` has moved within NumPy, but not what it does.
RECONSTRUCT = np.empty(0).__reduce__()[0]
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def load_plain(file: Path) -> Any:
    """What a pickle holds, if that is made of dicts, lists, tuples, text, numbers and arrays.

    A pickle may name any function and have it called; here it is an error to name one that arrays
    do not need. Text of Python 2 is read as Latin-1, which NumPy's arrays of that time need.

    Raises:
        pickle.UnpicklingError: If the pickle names anything else or is damaged.
    """
    with file.open("rb") as content:
        return _PlainUnpickler(content, encoding="latin1").load()


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f"it must hold plain values and arrays, got {module}.{name}"
            )
        return ALLOWED[module, name]
