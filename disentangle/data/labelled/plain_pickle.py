"""Pickles that hold arrays and plain Python values, read without running anything in them."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = ("u1", "i1", "i2", "i4", "i8", "f4", "f8")


def load_plain(file: Path) -> Any:
    """Load a pickle of dicts, lists, tuples, text, numbers and arrays only.

    A pickle may name any function and have it called; here it is an error to name one that arrays
    do not need, and what stands in the place of those makes an array of numbers or nothing: that of
    NumPy would take any description of memory. Text of Python 2 is read as Latin-1, which NumPy's
    arrays of that time need.

    Raises:
        pickle.UnpicklingError: If the pickle names anything else.
        Exception: Any kind, if it is damaged or an array is not one of numbers.
    """
    with file.open("rb") as content:
        return _PlainUnpickler(content, encoding="latin1").load()


class _DType:
    """Stand-in for `numpy.dtype`: a type of numbers."""

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in DTYPES:
            raise ValueError(f"arrays must be of {', '.join(DTYPES)}, got {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stand-in for NumPy's `_reconstruct`: an array that is empty until its state is known."""

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, column_major, content = state
        if isinstance(content, str):  # of Python 2
            content = content.encode("latin1")
        values: np.ndarray = np.frombuffer(content, kind.dtype)
        self.values = values.reshape(shape, order="F" if column_major else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)


# What NumPy writes for an array; `_reconstruct` has moved within NumPy. The class that it is told
# to make is always the same.
STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): lambda: partial(_Array),
    ("numpy._core.multiarray", "_reconstruct"): lambda: partial(_Array),
    ("numpy", "ndarray"): lambda: "ndarray",
    ("numpy", "dtype"): lambda: partial(_DType),
}


# The one in Python: that in C takes as much memory as a damaged or hostile file tells it to.
class _PlainUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(
                f"it must hold plain values and arrays, got {module}.{name}"
            )
        return STAND_INS[module, name]()  # made anew, since a pickle may change it
