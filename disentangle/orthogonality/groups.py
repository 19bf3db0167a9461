"""Parameter groups: where a parameter is in an optimizer, and a group of its own for it."""

from copy import deepcopy
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

Group = dict[str, Any]


def groups_of_parameters(optimizer: Optimizer) -> dict[int, Group]:
    """The group that holds each parameter, by the `id` of the parameter."""
    return {id(p): group for group in optimizer.param_groups for p in group["params"]}


def give_own_group(optimizer: Optimizer, parameter: Tensor) -> None:
    """Moves a parameter to a group of its own, with the options of the group it was in."""
    group = groups_of_parameters(optimizer)[id(parameter)]
    if len(group["params"]) > 1:
        index = next(i for i, other in enumerate(group["params"]) if other is parameter)
        # A deep copy: a learning rate that is a tensor would be shared between the groups.
        own = deepcopy({key: value for key, value in group.items() if key != "params"})
        own["params"] = [group["params"].pop(index)]
        if "param_names" in group:
            own["param_names"] = [group["param_names"].pop(index)]
        optimizer.add_param_group(own)
        group = own
    if "foreach" in group:
        # There is nothing to batch in a group of one, and Adam's path refuses a tensor as rate.
        group["foreach"] = False
