"""Hooks around the steps of an optimizer, which its copies keep.

PyTorch's own hooks are missing from a copied or unpickled optimizer, and those for the end of a
step are not called if the step raises. Neither can be changed for a single optimizer, so its class
is extended; optimizers of that class without `StepHooks` work as before.
"""

import copyreg
import functools
import pickle
from collections.abc import Callable, Iterable
from typing import Any, Self

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class StepHooks:
    """Base class for what acts at the beginning and at the end of each step of an optimizer.

    A copy of the optimizer, by `copy.deepcopy` or `pickle`, has copies of its `StepHooks`. As a
    context manager they are removed at the end.

    Args:
        optimizer: The optimizer.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._handles: list[RemovableHandle] = []
        self._register(optimizer)

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        raise NotImplementedError

    def _end_step(self) -> None:
        """End a step that returned or raised; called once or several times."""
        raise NotImplementedError

    def _after_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._end_step()

    def _register(self, optimizer: Optimizer) -> None:
        _extend(type(optimizer))
        self._handles += [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __getstate__(self) -> dict[str, Any]:
        # Handles are those of the original; `_rebuild` registers a copy.
        return {**vars(self), "_handles": []}


def step_hooks(optimizer: Optimizer) -> list[StepHooks]:
    """The `StepHooks` of an optimizer, in the order in which they act."""
    owners = (
        getattr(hook, "__self__", None) for hook in optimizer._optimizer_step_pre_hooks.values()
    )
    return [owner for owner in owners if isinstance(owner, StepHooks)]


def _extend(kind: type[Optimizer]) -> None:
    copyreg.pickle(kind, _reduce)
    if not hasattr(kind.step, "ends_step_hooks"):
        # Replaced in the class, as PyTorch does to call hooks.
        kind.step = _ending(kind.step)  # type: ignore[method-assign]


def _ending(step: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the step of a class so that `StepHooks` end it if it raises."""

    @functools.wraps(step)
    def wrapper(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        try:
            return step(optimizer, *args, **kwargs)
        except BaseException:
            for hooks in step_hooks(optimizer):
                hooks._end_step()
            raise

    wrapper.ends_step_hooks = True  # type: ignore[attr-defined]
    return wrapper


def _reduce(optimizer: Optimizer) -> str | tuple[Any, ...]:
    """The parts from which `copy` and `pickle` rebuild an optimizer."""
    if hooks := step_hooks(optimizer):
        return _rebuild, (type(optimizer), optimizer.__getstate__(), hooks)
    return optimizer.__reduce_ex__(pickle.DEFAULT_PROTOCOL)


def _rebuild(kind: type[Optimizer], state: dict[str, Any], hooks: Iterable[StepHooks]) -> Optimizer:
    optimizer = kind.__new__(kind)
    optimizer.__setstate__(state)
    for one in hooks:
        one._register(optimizer)
    return optimizer
