from typing import get_args

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from disentangle.orthogonality import (
    LOSS_TECHNIQUES,
    OPTIMIZER_TECHNIQUES,
    WEIGHT_TECHNIQUES,
    Technique,
    nearest_orthogonal_gradient,
    optimal_learning_rate,
)
from disentangle.orthogonality.nog import NOG_SCALES, nearest_orthogonal_gradients

SHAPES = [(5, 9), (9, 5), (4, 3, 3, 3), (8, 2, 1, 1)]


class RefuseToWait(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU, of the operations that can be seen from here."""

    WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "eigh", "svd", "qr", "lu", "solve")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func._schema.name, kwargs or {}
        assert not name.endswith(self.WAITING), name
        leaves = pytree.tree_leaves((args, kwargs))
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}
        if name == "aten::_to_copy" and "device" in kwargs:
            devices.add(kwargs["device"].type)
        # Comparisons and products take a number in the host's memory along; these copy it.
        copies = name in ("aten::where", "aten::copy_", "aten::_to_copy")
        moves = len(devices) > 1 and copies
        assert not moves or kwargs.get("non_blocking"), name
        return func(*args, **kwargs)


def test_names_of_techniques():
    assert get_args(Technique) == ("nog", "olr", "nou", "ol", "ow", "ow_kernel", "sn")
    parts = (*OPTIMIZER_TECHNIQUES, *LOSS_TECHNIQUES, *WEIGHT_TECHNIQUES)
    assert get_args(Technique) == parts


needs_fake_gpu = pytest.mark.skipif(
    torch.__version__.startswith("2.8.") and not torch.cuda.is_available(),
    reason="PyTorch 2.8 asks for a driver even where tensors have no values",
)


@needs_fake_gpu
def test_on_a_gpu_the_host_is_not_kept_waiting():
    """Without a GPU: operations on tensors without values are watched."""
    with FakeTensorMode(), RefuseToWait():
        gradients = [torch.empty(shape, device="cuda") for shape in [*SHAPES, (6, 70_000), (5, 9)]]
        rates = [0.1, torch.empty((), device="cuda"), torch.empty(())]
        for scale in NOG_SCALES:
            results = nearest_orthogonal_gradients(gradients, scale=scale)
            shapes = [gradient.shape for gradient in gradients]
            assert [result.shape for result in results] == shapes
        for gradient, rate in zip(gradients, rates, strict=False):
            assert nearest_orthogonal_gradient(gradient).is_cuda
            assert optimal_learning_rate(gradient, gradient, rate).is_cuda


@needs_fake_gpu
def test_what_keeps_the_host_waiting_is_noticed():
    with FakeTensorMode():
        A = torch.empty(3, 3, device="cuda")
        one = torch.ones(())
        for wait in (
            lambda: A.sum().item(),
            lambda: A.cpu(),
            lambda: one.cuda(),
            lambda: torch.where(A.sum() > 0, A.sum(), one),
            lambda: torch.linalg.eigh(A),
            lambda: torch.linalg.svd(A),
        ):
            with pytest.raises(AssertionError, match="aten::"), RefuseToWait():
                wait()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_this_gpu_the_host_is_not_kept_waiting():
    gradients = [torch.randn(shape, device="cuda") for shape in [*SHAPES, (6, 70_000), (5, 9)]]
    nearest_orthogonal_gradients(gradients)  # handles of libraries are made at the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = nearest_orthogonal_gradients(gradients)
        for rate in (0.1, torch.tensor(0.1)):
            for gradient in gradients:
                optimal_learning_rate(gradient, gradient, rate)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for result, gradient in zip(results, gradients, strict=True):
        expected = nearest_orthogonal_gradient(gradient.cpu())
        torch.testing.assert_close(result.cpu(), expected, atol=1e-5, rtol=0)
