"""Watch over the number of active codes of a VAE, which no loss shows.

The divergence does not show it either: a posterior mean that is far from 0, but the same for every
image, meets the capacity of an annealed VAE and carries no information.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

SHARE = 0.1  # of the steps, at the beginning, in which codes may still become active
# One line is of one batch: a code near the threshold is active in some and not in others.
PATIENCE = 3

State = Literal["none", "few", "most"]
STATES: tuple[State, ...] = get_args(State)  # from the worst to the best


class CodeCount(NamedTuple):
    """Number of active codes in one line of the log.

    Attributes:
        step: Step of the line.
        active: Number of active codes.
        codes: Number of all codes.
        divergence: Divergence of the posterior from the prior, in nats.
    """

    step: int
    active: int
    codes: int
    divergence: float

    @property
    def state(self) -> State:
        """`none`, `few` (fewer than half) or `most` of the codes are active."""
        if not self.active:
            return "none"
        return "few" if 2 * self.active < self.codes else "most"

    def __str__(self) -> str:
        if self.state == "none":
            return (
                f"no code is active at step {self.step}: the posterior means hardly vary from "
                f"image to image, with a divergence of {self.divergence:.3g} nats"
            )
        only = "only " if self.state == "few" else ""
        verb = "is" if self.active == 1 else "are"
        return f"{only}{self.active} of {self.codes} codes {verb} active at step {self.step}"


class CodeWatch:
    """Watch that reports when no code, or fewer than half, is active, and when that changes.

    Args:
        codes: Number of codes.
        steps: Steps of the run; nothing is said in the first tenth of them.
        say: Called with a line for each change that three lines of the log agree on: all are worse
            than the state before, or all are better.

    Attributes:
        state: State reported last; `most` at first.

    Examples:
        >>> watch = CodeWatch(codes=4, steps=100, say=print)
        >>> for step in (10, 20, 30, 40):
        ...     watch.take({"step": step, "active_units": 1.0, "kl/0": 2.0, "kl/1": 0.0})
        only 1 of 4 codes is active at step 30
    """

    def __init__(self, *, codes: int, steps: int, say: Callable[[str], None]) -> None:
        self.codes, self.steps, self.first, self.say = codes, steps, SHARE * steps, say
        self.state: State = "most"
        self.recent: deque[CodeCount] = deque(maxlen=PATIENCE)

    def restore(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Restore the state from the lines of `metrics.jsonl` of the run that is resumed."""
        for line in lines:
            self._update(line)

    def take(self, line: Mapping[str, Any]) -> None:
        """Add a new line of the log, and report the change of state, if any."""
        if change := self._update(line):
            self.say(str(change))

    def _update(self, line: Mapping[str, Any]) -> CodeCount | None:
        """Return the count of a line that changes the state, or None."""
        if (active := line.get("active_units")) is None:
            return None
        terms = (value for name, value in line.items() if name.startswith("kl/"))
        divergence = sum(value for value in terms if value is not None)
        count = CodeCount(line["step"], round(active), self.codes, divergence)
        self.recent.append(count)
        # The last line decides with however few there are.
        if count.step < self.first or (len(self.recent) < PATIENCE and count.step < self.steps):
            return None
        ranks = [STATES.index(other.state) for other in self.recent]
        state = STATES[min(max(ranks), max(STATES.index(self.state), min(ranks)))]
        if state == self.state:
            return None
        self.state = state
        return next(other for other in reversed(self.recent) if other.state == state)
