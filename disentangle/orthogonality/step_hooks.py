"""Hooks around the steps of an optimizer, which its copies keep.

PyTorch drops the hooks of a copied or unpickled optimizer, and calls no post-hook after a step that
raises. As a module does under `torch.nn.utils.parametrize`, an optimizer with `StepHooks` therefore
gets a class of its own: a subclass with the same name. Other optimizers are not affected.
"""

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Self

from torch.optim import Optimizer


class StepHooks:
    """Base class for what acts at the beginning and at the end of each step of an optimizer.

    A copy of the optimizer, by `copy.deepcopy` or `pickle`, has copies of its `StepHooks`. As a
    context manager they are removed at the end.

    Args:
        optimizer: The optimizer.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._removals: list[Callable[[], None]] = []
        self._register(optimizer)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        raise NotImplementedError

    def _after_step(self, *_: object) -> None:
        """Complete a step that did not raise."""
        self._end_step()

    def _end_step(self) -> None:
        """End a step that returned or raised; called once or several times."""
        raise NotImplementedError

    def _register(self, optimizer: Optimizer) -> None:
        optimizer.__class__ = _extended(original_class(optimizer))  # type: ignore[arg-type]
        self._removals += [
            optimizer.register_step_pre_hook(self._before_step).remove,
            optimizer.register_step_post_hook(self._after_step).remove,
            # Weak, or only the garbage collector would free the optimizer and its state.
            functools.partial(_restore_class, weakref.ref(optimizer)),
        ]

    def remove(self) -> None:
        """Remove the hooks."""
        for removal in self._removals:
            removal()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __getstate__(self) -> dict[str, Any]:
        # Removals are those of the original; `_rebuild` registers a copy.
        return {**vars(self), "_removals": []}


def step_hooks(optimizer: Optimizer) -> list[StepHooks]:
    """The `StepHooks` of an optimizer, in the order in which they act."""
    owners = (
        getattr(hook, "__self__", None) for hook in optimizer._optimizer_step_pre_hooks.values()
    )
    return [owner for owner in owners if isinstance(owner, StepHooks)]


def original_class(optimizer: Optimizer) -> type[Optimizer]:
    """The class of an optimizer before it had `StepHooks`."""
    return getattr(optimizer, "_original_class", type(optimizer))


@functools.cache
def _extended(kind: type[Optimizer]) -> type[Optimizer]:
    """The class of optimizers with `StepHooks` whose original class is `kind`."""

    class Extended(kind):  # type: ignore[misc, valid-type]
        _original_class = kind

        @functools.wraps(kind.step)
        def step(self, *args: Any, **kwargs: Any) -> Any:
            try:
                # Without `super`: schedulers may call this after the class is restored.
                return kind.step(self, *args, **kwargs)
            except BaseException:
                for hooks in step_hooks(self):
                    hooks._end_step()
                raise

        def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
            return _rebuild, (kind, step_hooks(self)), self.__getstate__()

    return functools.update_wrapper(Extended, kind, updated=())  # type: ignore[return-value]


def _rebuild(kind: type[Optimizer], hooks: Iterable[StepHooks]) -> Optimizer:
    """An optimizer with hooks, to which `copy` and `pickle` then give its state."""
    optimizer = kind.__new__(kind)
    # Only makes the containers of hooks, which the later call with the state leaves as they are.
    Optimizer.__setstate__(optimizer, {"defaults": {}})
    for one in hooks:
        one._register(optimizer)
    return optimizer


def _restore_class(reference: weakref.ref[Optimizer]) -> None:
    optimizer = reference()
    if optimizer is not None and not step_hooks(optimizer):
        optimizer.__class__ = original_class(optimizer)
