"""When to evaluate a run, whether it has converged, and whether to draw on or to correct."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..backend import brief, describe
from ..problem import check_bool, check_real
from .ascent import FEW_POINTS, STEP, AscentState
from .newton import CORRECTION
from .semi_dual import SemiDual

NORMAL_95, NORMAL_975 = 1.644854, 1.959964  # quantiles


@dataclass(frozen=True)
class Look:
    """Evaluation of a potential on fresh points.

    Attributes
    ----------
    chi2, chi2_stderr : float
        Unbiased estimate of ``sum_j (m_j - b_j)^2 / b_j`` (it may be negative), and its standard error:
        of n points, the square root of at most about ``2 n_eff / n^2 + 4 chi2 / n``.
    marginal_error, marginal_error_stderr : float
        Largest relative error of a mass, and the standard error of that mass.
    n_eff : float
        Effective number of atoms.
    n : int
        Points; without any, nothing is known.
    """

    chi2: float = math.nan
    chi2_stderr: float = math.nan
    marginal_error: float = math.nan
    marginal_error_stderr: float = math.nan
    n_eff: float = math.nan
    n: int = 0

    @property
    def bound(self) -> float:
        """Upper bound of chi2, of 95%; an estimate below 0 counts as 0, lest noise make it small."""
        return max(self.chi2, 0.0) + NORMAL_95 * self.chi2_stderr

    @property
    def look_bound(self) -> float:
        """The same of 97.5%: a run has two looks as a rule, together at 95%."""
        return max(self.chi2, 0.0) + NORMAL_975 * self.chi2_stderr

    @property
    def least(self) -> float:
        """Lower bound of chi2, of 95%."""
        return self.chi2 - NORMAL_95 * self.chi2_stderr


class StoppingRule(ABC):
    """Stopping rule of a run, its `tol`: when to evaluate the potential, and whether it is good enough.

    To write one, define the four abstract members, and call ``super().__init__()``. An evaluation on
    fresh points is a *look*. A run works on a copy of the rule; its looks are in the `log` of the
    result, as ``check_n_iter``, ``check_chi2`` and ``check_chi2_stderr``.

    Attributes
    ----------
    n_eff : float
        Effective number of atoms, as last measured; 1 at first.
    history : list of (int, float, float)
        Batches, chi2 and its standard error at each look.
    """

    def __init__(self) -> None:
        self.n_eff = 1.0
        self.history: list[tuple[int, float, float]] = []

    __repr__ = brief

    @property
    @abstractmethod
    def n_points(self) -> float:
        """Fresh points that a look takes: no more than the samples so far, but 1024 at least.

        An attribute, or a property that follows :attr:`n_eff`. They come in whole batches, and serve the
        ascent from then on, unless the source is quasi-random.
        """

    @abstractmethod
    def budget(self, most: float, n_atoms: int) -> float:
        """Samples that a run will take, `most` at most."""

    @abstractmethod
    def is_due(self, dual: SemiDual, ascent: AscentState, n_samples: float, is_last: bool) -> bool:
        """Whether to look now: not before the samples can be enough."""

    @abstractmethod
    def is_met(self, found: Look) -> bool:
        """Whether what a look found is good enough, noise allowed for: see :attr:`Look.look_bound`."""

    def may_be_met(self, found: Look) -> bool:
        """Whether the few points of a start leave it possible, so that more are worth a look."""
        return True

    def needed(self, ascent: AscentState, most: float) -> float:
        """Samples that a run should take, `most` at most: to be shown. NaN if it is not known."""
        return math.nan

    @property
    def last_chi2(self) -> float:
        """That of the last look; NaN before."""
        return self.history[-1][1] if self.history else math.nan

    def learn(self, found: Look) -> None:
        """Learn from a few points of a look how many it takes."""
        self.n_eff = found.n_eff

    def note(self, n_iter: int, found: Look) -> bool:
        """Remember a look; tell whether the rule is met."""
        self.history.append((n_iter, found.chi2, found.chi2_stderr))
        self.learn(found)
        return check_bool(f"tol: is_met of {type(self).__name__}", self.is_met(found))

    def wait(self, found: Look, n_samples: float) -> None:  # noqa: B027
        """Note that a look failed, at so many samples."""

    @property
    def is_stalled(self) -> bool:
        """Whether the looks that failed say that more samples would not help."""
        return False

    def prefers_correction(self, n_samples: int) -> bool:
        """Whether Newton's method is to correct the estimate after a look that failed.

        If not, the run draws on; at its end it corrects whatever is said here.
        """
        return False

    def corrects_first(
        self, dual: SemiDual, ascent: AscentState, n_samples: float, n_drawn: int
    ) -> bool:
        """Whether Newton's method is to correct the estimate now, before a look.

        Of the samples, `n_drawn` are points of the run; the others are those that its start counts for.
        """
        return False

    def corrected(self, passes: float) -> None:  # noqa: B027
        """Note a correction, which took so many passes over its points; `inf` if none is possible."""

    def look_size(self, n_samples: float) -> int:
        """Points of a look after so many samples."""
        n_points = check_real(f"tol: n_points of {type(self).__name__}", self.n_points, positive=True)
        return max(int(min(n_points, n_samples)), FEW_POINTS)

    def samples(self, most: float, n_atoms: int) -> float:
        """The budget, checked."""
        budget = self.budget(most, n_atoms)
        return check_real(f"tol: budget of {type(self).__name__}", budget, positive=True)


class FixedSamples(StoppingRule):
    """Take all samples, and look at none."""

    n_points = 0.0

    def budget(self, most: float, n_atoms: int) -> float:
        return most

    def is_due(self, dual: SemiDual, ascent: AscentState, n_samples: float, is_last: bool) -> bool:
        return False

    def is_met(self, found: Look) -> bool:
        return False

    def may_be_met(self, found: Look) -> bool:
        return False

    def needed(self, ascent: AscentState, most: float) -> float:
        return most


class ChiSquareRule(StoppingRule):
    """Stop when chi2 is at most a tolerance with confidence, as soon as that can be seen.

    Parameters
    ----------
    tol : float
        Its square is the chi2 that is wanted.
    sample_cost : float
        What it costs to draw a point, in rows of a reduction. Above 0, a run corrects as soon as the
        maximiser over its points should have a chi2 that is low enough, if that costs less than to draw
        the points that the average would take.

    Attributes
    ----------
    passes : float
        Over its points that a correction takes: as the last one did.
    overlap : float
        Variance of chi2 in units of its bound ``2 n_eff / n^2 + 4 chi2 / n``, of points that have atoms
        in common or not at all; less where each has a little of many. As last measured; 1 at first.
    failed : list of (float, Look)
        Samples at each look that failed, and what it found.
    """

    def __init__(self, tol: float, sample_cost: float = 0.0) -> None:
        super().__init__()
        self.chi2, self.sample_cost, self.passes, self.next = tol**2, sample_cost, CORRECTION, 0.0
        self.overlap, self.found = 1.0, Look()
        self.before: tuple[float, Look] | None = None
        self.failed: list[tuple[float, Look]] = []

    @property
    def precision(self) -> float:
        """Standard error of a look, in units of the chi2 to reach.

        A chi2 three of them below it passes. The more precise a look is, the sooner it can be, and the
        more points it takes: the sum is least about here.
        """
        return min(math.sqrt(math.sqrt(2.0 * self.overlap / self.n_eff) / 3.0), 0.2)

    @property
    def n_points(self) -> float:
        """Points of a look of that precision."""
        error, overlap = self.precision * self.chi2, self.overlap
        return math.sqrt(2.0 * overlap * self.n_eff) / error + 4.0 * overlap * self.chi2 / error**2

    def learn(self, found: Look) -> None:
        super().learn(found)
        self.found = found
        if found.n > 0:
            most = 2.0 * found.n_eff / found.n**2 + 4.0 * max(found.chi2, 0.0) / found.n
            self.overlap = max(found.chi2_stderr**2 / most, 1.0 / found.n)  # not 0

    def budget(self, most: float, n_atoms: int) -> float:
        return min(most, n_atoms / self.chi2)

    def expected(self, dual: SemiDual, ascent: AscentState) -> float:
        """What chi2 of the average should be: of its mean step, and of the noise of its points.

        The mean step has noise, too, and the iterates have answered a part of that of the points. In a
        linear model both together are 2 / time of it, where a mode of the start is down by exp(-time).
        It is no less than the noise.
        """
        if ascent.samples == 0.0:
            return math.inf
        bias = float(dual.target.nx.sum(dual.target.goal(ascent.average) * ascent.drift**2))
        noise = 9.0 / 8.0 * self.n_eff / ascent.samples
        n_atoms = dual.n_atoms / dual.target.n_problems
        time = STEP * ascent.steps * (1.0 - self.n_eff / n_atoms)
        return max(bias + noise * (1.0 - 2.0 / max(time, 1e-9)), noise)

    def needed(self, ascent: AscentState, most: float) -> float:
        """For the noise of the average and a look at it, or until the next look."""
        if ascent.samples == 0.0:
            return math.nan
        noise = 9.0 / 8.0 * self.n_eff / self.goal
        return min(max(noise + self.look_size(noise), self.next), most)

    def is_due(self, dual: SemiDual, ascent: AscentState, n_samples: float, is_last: bool) -> bool:
        if is_last or n_samples < self.next:
            return is_last
        return self.expected(dual, ascent) <= self.goal

    @property
    def goal(self) -> float:
        """The chi2 with which a look is likely to be passed."""
        return self.chi2 * (1.0 - 2.0 * self.precision)

    def corrects_first(
        self, dual: SemiDual, ascent: AscentState, n_samples: float, n_drawn: int
    ) -> bool:
        # the maximiser over the points has n_eff / n; what the average has falls as 1 / n at best
        is_enough = ascent.samples > 0.0 and self.n_eff <= self.goal * n_drawn
        if self.sample_cost == 0.0 or n_samples < self.next or not is_enough:
            return False
        # both in rows, for each point; of few points or atoms, a correction may take several times more
        saved = self.sample_cost * (self.expected(dual, ascent) / self.goal - 1.0)
        return saved > 4.0 * self.passes

    def is_met(self, found: Look) -> bool:
        return found.look_bound <= self.chi2

    def may_be_met(self, found: Look) -> bool:
        return found.least <= self.chi2

    def wait(self, found: Look, n_samples: float) -> None:
        self.failed.append((n_samples, found))
        short = found.look_bound / self.chi2
        # by twice the samples there is another look, whatever the last one said
        self.next = n_samples * min(max(short, 1.0 + self.precision), 2.0)

    @property
    def is_stalled(self) -> bool:
        """Whether chi2 has not halved while the samples grew sixteenfold: it should fall as 1 / n."""
        if not self.failed or self.is_met(self.failed[-1][1]):  # then it is the value that is not right
            return False
        n, found = self.failed[-1]
        return any(16.0 * then <= n and look.bound <= 2.0 * found.least for then, look in self.failed)

    def prefers_correction(self, n_samples: int) -> bool:
        """Whether to draw on until chi2 is low enough costs more than a correction, in rows.

        In theory chi2 falls as 1 / n; since the first look after the last correction it may have fallen
        more slowly. It counts as slower if that is more than the noise of both looks explains.
        """
        found, rate, n = self.found, 1.0, max(n_samples, 1)
        ratio = found.chi2 / self.chi2
        then, earlier = self.before = self.before or (n, found)
        if found.least * n > earlier.bound * then:
            rate = math.log(max(earlier.chi2 / found.chi2, 1.0)) / math.log(n / then)
        if ratio <= 1.0:
            return False
        allowed = math.log(1.0 + self.passes / (1.0 + self.sample_cost))
        return math.log(ratio) > rate * allowed  # ratio^(1 / rate) - 1, times the cost of a row

    def corrected(self, passes: float) -> None:
        """Note a correction, and what it took; the rate before says nothing of what comes."""
        self.passes, self.before = max(passes, CORRECTION), None


RULES: dict[str, Callable[[float, float], StoppingRule]] = {
    "samples": lambda tol, sample_cost: FixedSamples(),
    "chi2": ChiSquareRule,
}
"""Makers of the package's own, from a tolerance and what a sample costs, in rows of a reduction."""


def rule_of(tol: float | StoppingRule, sample_cost: float) -> StoppingRule:
    """The rule of a tolerance: a fixed number of samples if it is 0. A rule of the user is copied."""
    if isinstance(tol, StoppingRule):
        return copy.deepcopy(tol)
    return RULES["chi2" if tol > 0.0 else "samples"](tol, sample_cost)


def check_tol(tol: Any) -> float | StoppingRule:
    """Check a tolerance of the user: a number of at least 0, or a rule."""
    if isinstance(tol, StoppingRule):
        if not hasattr(tol, "history"):
            raise TypeError(
                f"tol: expected a rule with a history, received {describe(tol)} without; call "
                "super().__init__() in its __init__."
            )
        return tol
    try:
        return check_real("tol", tol)
    except TypeError:
        raise TypeError(
            f"tol: expected a real number or an instance of StoppingRule, received {describe(tol)}."
        ) from None
