"""Tensors that are not dense are refused by the linear algebra and all that builds on it."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from disentangle.linalg import (
    condition_number,
    effective_rank,
    matrix_inverse_sqrt,
    matrix_sqrt,
    polar_factor,
    polar_factors,
)
from disentangle.linalg.checks import check_dense
from disentangle.orthogonality import (
    as_matrix,
    attach,
    constrain_weight,
    nearest_orthogonal_gradient,
    optimal_learning_rate,
    orthogonal_loss,
)
from disentangle.orthogonality.conditioning import (
    covariance_conditioning,
    gradient_conditioning,
    weight_conditioning,
)

FUNCTIONS = {
    "polar_factor": polar_factor,
    "polar_factors": lambda x: polar_factors([x]),
    "matrix_sqrt": matrix_sqrt,
    "matrix_inverse_sqrt": matrix_inverse_sqrt,
    "condition_number": condition_number,
    "effective_rank": effective_rank,
    "nearest_orthogonal_gradient": nearest_orthogonal_gradient,
    "optimal_learning_rate: weight": lambda x: optimal_learning_rate(x, torch.eye(3), 0.1),
    "optimal_learning_rate: gradient": lambda x: optimal_learning_rate(torch.eye(3), x, 0.1),
    "orthogonal_loss": lambda x: orthogonal_loss([x]),
    "weight_conditioning": weight_conditioning,
    "gradient_conditioning": gradient_conditioning,
    "covariance_conditioning": covariance_conditioning,
}
KINDS = {
    "array": (lambda x: x.numpy(), "dense tensor, got ndarray"),
    "masked array": (lambda x: np.ma.array(x.numpy(), mask=np.eye(3)), "got MaskedArray"),
    "coo": (lambda x: x.to_sparse(), "dense tensor, got torch.sparse_coo"),
    "csr": (lambda x: x.to_sparse_csr(), "dense tensor, got torch.sparse_csr"),
    "meta": (lambda x: x.to("meta"), "on the meta device, which has no entries"),
    "quantised": (
        lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
        "got quantised torch.quint8",
    ),
    "float8": (lambda x: x.to(torch.float8_e4m3fn), "got torch.float8_e4m3fn: convert it"),
    "masked": (lambda x: torch.masked.masked_tensor(x, x > 0), "got a masked tensor"),
    "nested": (lambda x: torch.nested.as_nested_tensor([x, x]), "got a nested tensor"),
    "integer": (lambda x: x.to(torch.uint32), "floating point, got torch.uint32"),
    "complex": (lambda x: x.to(torch.complex64), "floating point, got torch.complex64"),
}


def make(kind):
    with warnings.catch_warnings(action="ignore"):  # torch calls some kinds prototypes
        return KINDS[kind][0](torch.eye(3))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_dense_tensor_is_refused(function, kind):
    with pytest.raises(ValueError, match=KINDS[kind][1]):
        FUNCTIONS[function](make(kind))


@pytest.mark.parametrize("constraint", ["orthogonal", "spectral"])
@pytest.mark.parametrize("kind", ["coo", "float8", "complex"])
def test_such_a_weight_is_neither_constrained_nor_attached_to(constraint, kind):
    linear = nn.Linear(3, 3)
    linear.weight = nn.Parameter(make(kind))
    with pytest.raises(ValueError, match=f"'weight' must .*{KINDS[kind][1].rpartition('got ')[2]}"):
        constrain_weight(linear, "weight", constraint)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="'weight' must"):
        attach(optimizer, {"weight": linear.weight}, ["nog"])


def test_a_shape_without_entries_is_enough_to_be_taken_as_a_matrix():
    assert as_matrix(torch.empty(4, 3, 2, 2, device="meta")).shape == (4, 12)
    with pytest.raises(ValueError, match="a weight or gradient must be a dense tensor, got list"):
        as_matrix([[1.0]])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint64, torch.bfloat16, torch.complex128])
def test_every_type_that_torch_computes_in_is_dense(dtype):
    check_dense("tensor", torch.zeros(2, dtype=dtype))


def test_a_check_waits_for_no_value(count_scalars):
    with count_scalars() as count:
        check_dense("matrix", torch.eye(3))
    assert count.calls == 0
