"""Detect host synchronisation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class CountScalars(TorchDispatchMode):
    """Count the operations that wait for the value of a tensor."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += func is torch.ops.aten._local_scalar_dense.default
        self.calls += func is torch.ops.aten.is_nonzero.default
        return func(*args, **(kwargs or {}))


@contextmanager
def refusing_to_wait(device: torch.device) -> Iterator[None]:
    """Raise `RuntimeError` if the block synchronises with the device.

    On CUDA, the synchronising operation itself raises. On other devices, values that are read from
    tensors are counted.
    """
    if device.type != "cuda":
        with CountScalars() as count:
            yield
        if count.calls:
            raise RuntimeError(f"values of tensors were waited for {count.calls} times")
        return
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)
