"""What is scored: codes that came from anywhere, or what has more to offer."""

from collections.abc import Mapping, Sequence

from disentangle.evaluation.progress import Progress
from disentangle.evaluation.representations import Points
from disentangle.evaluation.sampling import Draws


class Target:
    """Codes that came from anywhere; base of what has more to offer.

    Args:
        name: For tables and messages.
        points: Codes and factors.
        draws: How much is drawn.
        progress: Shows what takes long.

    Attributes:
        offers: What a metric may ask of it, of the keys of `NEEDS` in `evaluation.inputs`.
        peers: Subjects with the same points, itself included, for metrics of several runs.
        across_settings: Whether the peers may differ in more than their seed.
        suffixes: What distinguishes the names of scores, by what these need, from those of the
            model's own encoder and axes.
    """

    suffixes: Mapping[str, str] = {}
    across_settings = False

    def __init__(self, name: str, points: Points, draws: Draws, progress: Progress) -> None:
        self.name, self.draws, self.progress = name, draws, progress
        self.points = points
        self.peers: Sequence[Target] = (self,)
        self.offers = {"codes", "factors"}
        if points.test_codes is not None:
            self.offers.add("test split")

    @property
    def point_count(self) -> int:
        """Number of training points."""
        return len(self.points.codes)
