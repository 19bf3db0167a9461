import pytest
import torch
from torch import nn

from disentangle.orthogonality import as_matrix, resolve_parameters


def make_network():
    """One layer of each kind."""
    conv, up = nn.Conv2d(3, 4, kernel_size=3), nn.ConvTranspose2d(4, 2, kernel_size=2)
    return nn.ModuleDict({"conv": conv, "up": up, "linear": nn.Linear(128, 5)})


NAMES = ("conv.weight", "up.weight", "linear.weight")


def test_as_matrix_flattens_all_but_the_first_dimension():
    assert as_matrix(nn.Linear(7, 5).weight).shape == (5, 7)
    assert as_matrix(nn.Conv2d(3, 8, kernel_size=(2, 5)).weight).shape == (8, 30)
    # Stored as (in, out, kh, kw).
    assert as_matrix(nn.ConvTranspose2d(3, 8, kernel_size=2).weight).shape == (3, 32)
    with pytest.raises(ValueError, match=r"at least 2 dimensions.*got shape \(4,\)"):
        as_matrix(torch.ones(4))


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_names_are_found_inside_wrappers():
    network = make_network()
    for wrapped in (network, Wrapper(network), Wrapper(Wrapper(network)), torch.compile(network)):
        found = resolve_parameters(wrapped, NAMES)
        assert list(found) == list(NAMES)
        assert found["up.weight"] is network["up"].weight


def test_the_full_name_wins_over_the_end_of_another():
    network = nn.ModuleDict({"weight_of": nn.Linear(2, 2), "deep": Wrapper(nn.Linear(2, 2))})
    network["module"] = nn.Linear(2, 2)
    found = resolve_parameters(network, ["module.weight"])["module.weight"]
    assert found is network["module"].weight


def test_a_name_that_is_not_found_is_an_error():
    with pytest.raises(ValueError, match=r"'conv.wieght'; there is conv.weight"):
        resolve_parameters(make_network(), ["conv.wieght"])
    with pytest.raises(ValueError, match=r"'zzz'; there is conv.weight, conv.bias, up.weight"):
        resolve_parameters(make_network(), ["zzz"])
    # An end, but not from a dot on.
    with pytest.raises(ValueError, match=r"no parameter is named 'onv.weight'"):
        resolve_parameters(make_network(), ["onv.weight"])


def test_what_is_found_twice_is_an_error():
    network = make_network()
    with pytest.raises(ValueError, match=r"'weight' names 3 parameters: conv.weight, up.weight, l"):
        resolve_parameters(network, ["weight"])
    with pytest.raises(ValueError, match=r"'conv.weight' and 'conv.weight' are the same"):
        resolve_parameters(network, ["conv.weight", "conv.weight"])
    with pytest.raises(ValueError, match=r"'module.conv.weight' and 'conv.weight' are the same"):
        resolve_parameters(Wrapper(network), ["module.conv.weight", "conv.weight"])
    tied = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    tied["b"].weight = tied["a"].weight
    with pytest.raises(ValueError, match=r"'a.weight' and 'b.weight' are the same parameter"):
        resolve_parameters(tied, ["a.weight", "b.weight"])


def test_other_bad_names():
    network = make_network()
    with pytest.raises(ValueError, match="at least one parameter, got none"):
        resolve_parameters(network, [])
    with pytest.raises(ValueError, match=r"got the string 'conv.weight'"):
        resolve_parameters(network, "conv.weight")
    with pytest.raises(ValueError, match=r"'conv.bias' must have at least 2 .*got shape \(4,\)"):
        resolve_parameters(network, ["conv.bias"])
