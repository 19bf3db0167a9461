import dataclasses
import inspect

import numpy as np
import pytest

import disentangle.metrics as package
from disentangle.metrics.mig import MigResult
from disentangle.metrics.results import Result

RESULTS = [
    kind
    for _, kind in inspect.getmembers(package, dataclasses.is_dataclass)
    if "score" in kind.__dataclass_fields__
]


def mig_result(**changes):
    values = {"gaps": np.zeros(2), "mutual_information": np.zeros((3, 2)), "entropies": np.ones(2)}
    return MigResult(**({"score": 0.0, "excluded_factors": ()} | values | changes))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"score": float("nan")}, "score"),
        ({"entropies": np.array([1, np.nan])}, "entropies"),
        ({"mutual_information": np.full((3, 2), np.nan)}, "mutual_information"),
    ],
)
def test_nan_is_refused_where_a_number_is_defined(changes, name):
    with pytest.raises(FloatingPointError, match=f"{name} of MigResult must be a number, got NaN"):
        mig_result(**changes)


def test_nan_is_kept_where_no_number_is_defined():
    assert np.isnan(mig_result(gaps=np.array([0, np.nan]), excluded_factors=(1,)).gaps[1])
    assert np.isinf(mig_result(score=np.inf).score)


@pytest.mark.parametrize("kind", RESULTS)
def test_every_result_says_what_can_be_undefined(kind):
    assert issubclass(kind, Result)
    assert kind.undefined <= {field.name for field in dataclasses.fields(kind)}
    assert "score" not in kind.undefined or kind.__name__ == "FittedEncoder"
    assert all(name in kind.__doc__ for name in kind.undefined)
