"""When to evaluate a run, whether it has converged, and whether to draw on or to correct."""

import math

from .ascent import AscentState
from .newton import CORRECTION
from .semi_dual import SemiDual

LATER = 2.0  # times the samples of a look that failed, after which there is another at the latest


class StoppingRule:
    """Stop when chi2 is at most a tolerance with confidence, as soon as it can be told.

    Parameters
    ----------
    chi2 : float
        What is wanted; 0 for never.
    sample_cost : float
        What it costs to draw a point, in rows of a reduction.

    Attributes
    ----------
    n_eff : float
        Effective number of atoms, as it was measured last.
    history : list of (int, float, float)
        Batches, chi2 and its standard error at each look.
    passes : float
        Over its points that a correction takes: as the last one did.
    """

    def __init__(self, chi2: float, sample_cost: float) -> None:
        self.chi2, self.sample_cost, self.n_eff, self.history = chi2, sample_cost, 1.0, []
        self.passes, self.next, self.before = CORRECTION, 0.0, None

    @property
    def precision(self) -> float:
        """Standard error of a look, in units of the chi2 wanted.

        A chi2 three of them below it passes. The more precise a look is, the sooner it can be, and the
        more points it takes: the sum is least about here.
        """
        return min(math.sqrt(math.sqrt(2.0 / self.n_eff) / 3.0), 0.2)

    @property
    def n_points(self) -> float:
        """Points of a look of that precision: its variance is ``2 n_eff / n^2 + 4 chi2 / n``."""
        error = self.precision * self.chi2
        return math.sqrt(2.0 * self.n_eff) / error + 4.0 * self.chi2 / error**2

    def expected(self, dual: SemiDual, ascent: AscentState) -> float:
        """What chi2 of the average should be: of its mean step, and of the noise of its points."""
        if ascent.samples == 0.0:
            return math.inf
        bias = float(dual.target.nx.sum(dual.target.weights * ascent.drift**2))
        return bias + 9.0 / 8.0 * self.n_eff / ascent.samples

    def is_due(self, dual: SemiDual, ascent: AscentState, n_samples: float) -> bool:
        """Whether it is time to look: not before the samples can be enough."""
        if self.chi2 == 0.0 or n_samples < self.next:
            return False
        return self.expected(dual, ascent) <= self.chi2 * (1.0 - 2.0 * self.precision)

    def is_met(self, n_iter: int, chi2: float, stderr: float, bound: float, n_eff: float) -> bool:
        """Note a look, and tell whether the tolerance is met: whether a bound of chi2 is below it."""
        self.history.append((n_iter, chi2, stderr))
        self.n_eff = n_eff
        return bound <= self.chi2

    def wait(self, bound: float, n_samples: float) -> None:
        """Say when to look again, after a look that failed."""
        self.next = n_samples * min(max(bound / self.chi2, 1.0 + self.precision), LATER)

    def prefers_correction(self, n_samples: int) -> bool:
        """Whether to draw on until chi2 is low enough costs more than a correction, in rows.

        In theory chi2 falls as 1 / n; since the look before it may have fallen more slowly.
        """
        ratio, rate, n = self.history[-1][1] / self.chi2, 1.0, max(n_samples, 1)
        if self.before is not None and self.before[0] < n:
            then, found = self.before
            rate = min(math.log(max(found / ratio, 1.0)) / math.log(n / then), 1.0)
        self.before = n, ratio
        if ratio <= 1.0:
            return False
        allowed = math.log(1.0 + self.passes / (1.0 + self.sample_cost))
        return math.log(ratio) > rate * allowed  # ratio^(1 / rate) - 1, times the cost of a row

    def corrected(self, passes: float) -> None:
        """Note a correction, and what it took; the rate before says nothing of what comes."""
        self.passes, self.before = max(passes, CORRECTION), None
