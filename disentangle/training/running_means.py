"""Means of terms over steps, and the first step at which each was non-finite."""

import math

import torch
from torch import Tensor

from disentangle.training.learner import Terms


class Tally:
    """Accumulator of terms on their device, without synchronisation.

    Terms that are added together are kept as one vector, so that a step takes a few operations for
    any number of terms. Steps may have different terms.

    Examples:
        >>> tally = Tally()
        >>> tally.add(1, {"loss": torch.tensor(3.0)})
        >>> tally.add(2, {"loss": torch.tensor(torch.nan)})
        >>> tally.add(3, {"loss": torch.tensor(1.0)})
        >>> tally.means(), tally.firsts()
        ({'loss': tensor(2., dtype=torch.float64)}, {'loss': tensor(2., dtype=torch.float64)})
    """

    def __init__(self) -> None:
        # Sums, counts and first non-finite steps, `(3, T)`, of the terms with these names.
        self.tables: dict[tuple[str, ...], Tensor] = {}

    def add(self, step: int, terms: Terms) -> None:
        """Add the terms of a step, each a 0-d tensor."""
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
        """Return the mean of each term over the steps at which it was finite; NaN without one."""
        sums, counts = self._add_up(0), self._add_up(1)
        return {name: sums[name] / counts[name] for name in sums}

    def firsts(self) -> Terms:
        """Return the first step at which each term was non-finite; infinity without one."""
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
