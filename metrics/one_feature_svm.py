"""Linear support vector machines on one feature, solved exactly.

With one feature, the points inside the margin of a class are those on one side of a threshold: sums
over them are differences of prefix sums, and a Newton step costs O(log N) instead of O(N). As the
objective is piecewise quadratic, Newton's method ends at its minimum, up to rounding.
"""

from dataclasses import dataclass

import numpy as np

TARGETS = np.array([[1.0], [-1.0]])  # of a class's own points, and of the rest
CONVERGED = 1e-11  # relative to the solution, which is of order 1
DROWNED = 1e-14  # relative to the rest of the objective
MAX_STEPS = 100  # of Newton's method, which takes about ten
MAX_HALVINGS = 60  # of a step, which then is below rounding


def fit_one_feature_svms(
    feature: np.ndarray, labels: np.ndarray, *, cost: float
) -> tuple[np.ndarray, np.ndarray]:
    """One-vs-rest linear SVMs with balanced classes, for several labellings of the same points.

    The slope `w` and the intercept `b` that minimise the objective of liblinear (Fan et al., JMLR
    2008, https://www.jmlr.org/papers/v9/fan08a.html) under `sklearn.svm.LinearSVC(C=cost,
    class_weight="balanced")`: `½ (w² + b²) + Σᵢ Cᵢ max(0, 1 − yᵢ (w xᵢ + b))²`. The intercept is
    penalised like the slope. `Cᵢ` is `cost · N / (V N_class)` for the points of the class, with `V`
    the number of classes; liblinear leaves the rest at `cost`, but weighs both of two classes.

    Args:
        feature: Shape `(N,)`, floating-point.
        labels: Integers of shape `(N, F)`; labelling `f` counts its classes from 0 to `V_f − 1`,
            with `V_f ≥ 2`, and has a point of each.
        cost: The constant `C`, positive.

    Returns:
        Slopes and intercepts of shape `(ΣV_f,)`, one labelling's classes after the other's. Of a
        labelling, the class whose `w x + b` is the largest is predicted.

    Raises:
        RuntimeError: If Newton's method does not converge.

    Examples:
        >>> x, labels = np.array([-1.0, -1.0, 1.0, 1.0]), np.array([[0], [0], [1], [1]])
        >>> slopes, intercepts = fit_one_feature_svms(x, labels, cost=1.0)
        >>> slopes.round(4), intercepts.round(4) + 0
        (array([-0.8889,  0.8889]), array([0., 0.]))
    """
    x = feature.astype(np.float64)
    middle = x.min() / 2 + x.max() / 2
    # in units of the half range about the middle, Newton's equations are well conditioned
    scale = (x.max() - middle) or 1.0
    shift = middle / scale
    # w² + b² as a form in the scaled unknowns w·scale and b + w·middle. A slope penalty that the
    # rest drowns in rounding (half ranges above 1e6 with the usual cost) would not hold the slope
    slope_penalty = max(1 / scale**2, DROWNED * (1 + cost * len(x)))
    penalty = np.array([[slope_penalty + shift**2, -shift], [-shift, 1.0]])
    theta = _Objective.build((x - middle) / scale, labels, cost, penalty).minimise()
    slopes = theta[:, 0] / scale
    return slopes, theta[:, 1] - slopes * middle


@dataclass(frozen=True)
class _Objective:
    """The objectives of C classes, as functions of slope and intercept, `theta` `(C, 2)`.

    Attributes:
        feature: In ascending order, shape `(N,)`.
        sums: Sums of 1, x and x² over the first points of that order, shape `(N + 1, 3)`.
        keys: One integer per point of each class, in ascending order: of all points with a smaller
            feature, their number, plus `N + 1` times the class.
        own_sums: The same sums over the points in the order of the keys, shape `(N·F + 1, 3)`.
        starts: Where each class begins and the last one ends among the keys, shape `(C + 1,)`.
        costs: Costs of the class's own points and of the rest, shape `(2, C)`.
        penalty: `P` of the penalty `½ θᵀ P θ`, shape `(2, 2)`.
    """

    feature: np.ndarray
    sums: np.ndarray
    keys: np.ndarray
    own_sums: np.ndarray
    starts: np.ndarray
    costs: np.ndarray
    penalty: np.ndarray

    @classmethod
    def build(
        cls, x: np.ndarray, labels: np.ndarray, cost: float, penalty: np.ndarray
    ) -> "_Objective":
        n, factors = labels.shape
        values = labels.max(axis=0) + 1  # (F,)
        classes = labels + (np.cumsum(values) - values)  # (N, F): numbered through
        feature = np.sort(x)
        keys = (classes * (n + 1) + np.searchsorted(feature, x)[:, None]).ravel()  # (N·F,)
        order = np.argsort(keys)
        counts = np.bincount(classes.ravel())  # (C,)
        siblings = np.repeat(values, values)  # (C,): the number of classes of their labelling
        own = cost * n / (siblings * counts)
        rest = np.where(siblings == 2, cost * n / (2 * (n - counts)), cost)
        return cls(
            feature=feature,
            sums=_prefix_sums(feature),
            keys=keys[order],
            own_sums=_prefix_sums(np.repeat(x, factors)[order]),
            starts=np.concatenate([[0], np.cumsum(counts)]),
            costs=np.stack([own, rest]),
            penalty=penalty,
        )

    def minimise(self) -> np.ndarray:
        """The minima `(C, 2)`, by Newton's method with step halving."""
        theta = np.zeros((len(self.starts) - 1, 2))
        value, gradient, hessian = self.evaluate(theta)
        done = np.zeros(len(theta), dtype=bool)
        for _ in range(MAX_STEPS):
            step = -np.linalg.solve(hessian, gradient[..., None])[..., 0]  # (C, 2)
            step[done] = 0
            slope = (gradient * step).sum(axis=1)
            length = np.ones(len(theta))
            for _ in range(MAX_HALVINGS):
                trial = theta + length[:, None] * step
                trial_value, gradient, trial_hessian = self.evaluate(trial)
                # the slack is rounding of the value: without it the last steps would be refused
                too_far = trial_value > value * (1 + 1e-12) + 1e-4 * length * slope
                if not too_far.any():
                    break
                length[too_far] /= 2
            same_piece = (length == 1) & (trial_hessian == hessian).all(axis=(1, 2))
            done |= same_piece | (np.abs(step) <= CONVERGED * (1 + np.abs(theta))).all(axis=1)
            theta, value, hessian = trial, trial_value, trial_hessian
            if done.all():
                return theta
        raise RuntimeError(f"Newton's method did not converge in {MAX_STEPS} steps")

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values `(C,)`, gradients `(C, 2)` and Hessians `(C, 2, 2)`."""
        slope, intercept = theta.T
        count, first, second = np.moveaxis(self.costs[..., None] * self._inside(theta), -1, 0)
        a = TARGETS - intercept  # (2, C): the loss of a point is (slope·x − a)²
        loss = a**2 * count - 2 * a * slope * first + slope**2 * second
        gradient = 2 * np.stack([slope * second - a * first, slope * first - a * count], axis=-1)
        hessian = 2 * np.stack([second, first, first, count], axis=-1).sum(axis=0)
        regular = theta @ self.penalty
        return (
            loss.sum(axis=0) + (regular * theta).sum(axis=1) / 2,
            gradient.sum(axis=0) + regular,
            hessian.reshape(-1, 2, 2) + self.penalty,  # (C, 4) → (C, 2, 2)
        )

    def _inside(self, theta: np.ndarray) -> np.ndarray:
        """Sums `(2, C, 3)` of 1, x and x² over the points with a loss: the class's, the rest's."""
        slope, intercept = theta.T
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # adding zero turns −0 into 0, so that infinite thresholds have the right sign; 0/0 may
            # fall on any side, as all points then have the loss 0
            thresholds = (TARGETS - intercept) / (slope + 0.0)
        below = np.searchsorted(self.feature, thresholds)  # (2, C): how many points
        first_keys = np.arange(len(slope)) * (len(self.feature) + 1)
        own_below = self.own_sums[np.searchsorted(self.keys, first_keys + below)]
        own_below -= self.own_sums[self.starts[:-1]]
        own = self.own_sums[self.starts[1:]] - self.own_sums[self.starts[:-1]]  # (C, 3)
        rising = (slope >= 0)[:, None]
        rest_below = self.sums[below[1]] - own_below[1]
        rest = self.sums[-1] - own
        own_inside = np.where(rising, own_below[0], own - own_below[0])
        rest_inside = np.where(rising, rest - rest_below, rest_below)
        inside = np.stack([own_inside, rest_inside])
        # differences of prefix sums carry rounding: where it breaks Σx² ≥ (Σx)² / n, a Hessian is
        # not positive definite
        least = inside[..., 1] ** 2 / np.maximum(inside[..., 0], 1)
        inside[..., 2] = np.maximum(inside[..., 2], least)
        return inside


def _prefix_sums(x: np.ndarray) -> np.ndarray:
    """Sums of 1, x and x² over the first 0, 1, … N points, shape `(N + 1, 3)`."""
    sums = np.zeros((len(x) + 1, 3))
    np.cumsum(np.stack([np.ones_like(x), x, x**2], axis=1), axis=0, out=sums[1:])
    return sums
