"""Parameter groups: where a parameter is in an optimizer, and a group of its own for it."""

from copy import deepcopy
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

Group = dict[str, Any]

_MEMBERS = ("params", "param_names")


def groups_of_parameters(optimizer: Optimizer) -> dict[int, Group]:
    """The group that holds each parameter, by the `id` of the parameter."""
    return {id(p): group for group in optimizer.param_groups for p in group["params"]}


def own_options(group: Group) -> Group:
    """The options of a group, copied for a group with a single parameter."""
    # A deep copy: a learning rate that is a tensor would be shared between the groups.
    own = deepcopy({key: value for key, value in group.items() if key not in _MEMBERS})
    _do_not_batch(own)
    return own


def give_own_group(optimizer: Optimizer, parameter: Tensor) -> None:
    """Moves a parameter to a group of its own, with the options of the group it was in."""
    group = groups_of_parameters(optimizer)[id(parameter)]
    if len(group["params"]) == 1:
        _do_not_batch(group)
        return
    own = own_options(group)
    index = next(i for i, other in enumerate(group["params"]) if other is parameter)
    own |= {members: [group[members].pop(index)] for members in _MEMBERS if members in group}
    optimizer.add_param_group(own)


def _do_not_batch(group: Group) -> None:
    if "foreach" in group:
        # There is nothing to batch in a group of one, and Adam's path refuses a tensor as rate.
        group["foreach"] = False
