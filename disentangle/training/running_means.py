"""Means of terms over steps, and when each of them was first not finite."""

import math

import torch
from torch import Tensor

from disentangle.training.learner import Terms


class Tally:
    """Sums terms up on their device, without waiting for a value there.

    Terms that come together are kept as one vector: a few operations per step, however many they
    are. A step may have terms that another has not.

    Examples:
        >>> tally = Tally()
        >>> tally.add(1, {"loss": torch.tensor(3.0)})
        >>> tally.add(2, {"loss": torch.tensor(torch.nan)})
        >>> tally.add(3, {"loss": torch.tensor(1.0)})
        >>> tally.means(), tally.firsts()
        ({'loss': tensor(2., dtype=torch.float64)}, {'loss': tensor(2., dtype=torch.float64)})
    """

    def __init__(self) -> None:
        # Sums, counts and first steps, `(3, T)`, of the terms that come under these names.
        self.tables: dict[tuple[str, ...], Tensor] = {}

    def add(self, step: int, terms: Terms) -> None:
        """Takes in the terms of a step, each a 0-d tensor."""
        if not terms:
            return
        values = torch.stack([term.detach().double() for term in terms.values()])
        finite = values.isfinite()
        names = tuple(terms)
        if names not in self.tables:
            self.tables[names] = values.new_zeros(3, len(names))
            self.tables[names][2] = math.inf
        sums, counts, firsts = self.tables[names]
        sums += torch.where(finite, values, 0.0)
        counts += finite
        torch.where(finite, firsts, firsts.clamp(max=step), out=firsts)

    def means(self) -> Terms:
        """Of each term, over the steps at which it was finite; not a number if there is none."""
        sums, counts = self._add_up(0), self._add_up(1)
        return {name: sums[name] / counts[name] for name in sums}

    def firsts(self) -> Terms:
        """The first step at which each term was not finite; infinity if it always was."""
        found: Terms = {}
        for names, table in self.tables.items():
            for name, first in zip(names, table[2], strict=True):
                found[name] = torch.minimum(found[name], first) if name in found else first
        return found

    def _add_up(self, row: int) -> Terms:
        total: Terms = {}
        for names, table in self.tables.items():
            for name, value in zip(names, table[row], strict=True):
                total[name] = total[name] + value if name in total else value
        return total
