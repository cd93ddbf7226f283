"""Estimates of a result, each made when it is first asked for."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..backend import Array, brief, in_double
from ..kernels import reduce
from ..optim.ascent import FEW_POINTS
from ..optim.newton import QUICK, NewtonResult, maximize
from ..optim.semi_dual import Measurement, SemiDual
from ..optim.stopping import NORMAL_95, NORMAL_975, Look, StoppingRule
from ..problem import Target, unshared
from ..runs import say
from .bounds import FittedPoints, plan_cost
from .chi2 import GROUPS, chi_square, worst_atom
from .errors import NormalLaw, SampleFit
from .gaps import hides_boundaries
from .trace import Models, trace_estimate

COARSE_RTOL = 0.5  # of the statistical error: enough to tell whether a maximiser is far
PENDING = 2**23  # coordinates of points that a result holds, about
SIGNIFICANT = 5.0  # standard errors, and gains by chance, above which an excess is not chance


@dataclass(frozen=True)
class Evaluation(Look):
    """Estimates on fresh samples; without any, nothing is known.

    Attributes
    ----------
    value : scalar of the backend
        Semi-dual value, in expectation at most the transport cost.
    value_stderr : float
        Its Monte-Carlo standard error.
    marginal : array, shape (n_support,)
        Mean of the assignment weights, which is the goal at an optimal potential.
    measured : Measurement
        What the samples measured, as long as it is of use.
    """

    value: Any = None
    value_stderr: float = math.nan
    marginal: Any = None
    measured: Measurement | None = None

    __repr__ = brief


UNKNOWN = Evaluation()


def evaluate(
    dual: SemiDual, x: Array, psi: Array, reg: float, before: Measurement | None = None
) -> Evaluation:
    """Estimates at a potential that has not seen the points `x`, and those measured before."""
    return _evaluation(dual.target, _measure(dual, x, psi, reg, before), psi)


def evaluate_parts(
    dual: SemiDual,
    targets: Sequence[Target],
    x: Array,
    psi: Array,
    reg: float,
    before: Measurement | None = None,
) -> tuple[list[Evaluation], Measurement]:
    """The same for each of the targets that are stacked; and what was measured of all of them."""
    stacked: Any = dual.target
    measured = _measure(dual, x, psi, reg, before)
    parts = zip(targets, dual.parts(measured, psi), stacked.columns, strict=True)
    return [_evaluation(target, part, psi[columns]) for target, part, columns in parts], measured


def _measure(
    dual: SemiDual, x: Array, psi: Array, reg: float, before: Measurement | None
) -> Measurement:
    """What the points measure, together with those before."""
    groups = min(GROUPS, x.shape[0]) if before is None else len(before.groups)
    measured = dual.measure(x, psi, reg, groups)
    return measured if before is None else dual.pooled(before, measured)


def _evaluation(target: Target, measured: Measurement, psi: Array) -> Evaluation:
    """Estimates at a potential, of what was measured there."""
    host = in_double(measured.transform)
    return Evaluation(
        *chi_square(measured),
        *worst_atom(measured, target.weights),
        measured.n_eff,
        measured.n,
        value=target.semi_dual(measured.transform, psi),
        value_stderr=float(host.std(ddof=1) / math.sqrt(len(host))) if len(host) > 1 else math.nan,
        marginal=measured.marginal,
        measured=measured,
    )


def evaluate_sequentially(
    evaluate: Callable[[Array, Measurement | None], Evaluation],
    draw: Callable[[int], Array],
    rule: StoppingRule,
    most: float,
) -> tuple[Evaluation, list[Array]]:
    """Estimates on fresh points, which tell how many more it takes (Chow and Robbins, 1965).

    Parameters
    ----------
    evaluate : callable
        ``points, measured -> Evaluation``, of these points and of what was measured before.
    draw : callable
        ``n -> points``, n or more.
    rule : StoppingRule
        It learns what it takes from what the points so far have found.
    most : float
        Points that a look takes at most.

    Returns
    -------
    Evaluation
    points : list of array, shape (n, d)
    """
    points = [draw(FEW_POINTS)]
    found = evaluate(points[0], None)
    while True:
        rule.learn(found)
        missing = rule.look_size(most) - found.n
        if missing <= 0:
            return found, points
        least = 1 if found.measured is None else len(found.measured.groups)  # a point for each
        points.append(draw(max(min(missing, found.n), least)))
        found = evaluate(points[-1], found.measured)


@dataclass(frozen=True)
class Certificate:
    """Estimates of the optimum.

    Attributes
    ----------
    value_interval : tuple of float, or None
        It holds the transport cost with 95% confidence.
    suboptimality, suboptimality_bound : float
        Estimate of ``H(psi*) - H(psi)``, and what it is below with 95% confidence.
    """

    value_interval: tuple[float, float] | None = None
    suboptimality: float = math.nan
    suboptimality_bound: float = math.nan


class Estimates:
    """Estimates of a potential, made of fresh points when they are asked for.

    Parameters
    ----------
    target : Target
    potential : array, shape (n_support,)
    reg : float
    points : array, shape (n, d), optional
        Points that the potential has not seen; without any, nothing is known.
    evaluation : Evaluation, optional
        That of these points, if it was made before.
    fit : FittedPoints, optional
        Points of the run and what was fitted to them, which bound the cost from above.
    n_samples : float
        Of the run. The sub-optimality is what so many samples allow, unless fresh points show more.
    verbose : bool
        Print what is done where that takes long; else it is logged.
    """

    def __init__(
        self,
        target: Target,
        potential: Array,
        reg: float,
        points: Array | None = None,
        evaluation: Evaluation = UNKNOWN,
        fit: FittedPoints | None = None,
        n_samples: float = 0.0,
        verbose: bool = False,
    ) -> None:
        target = unshared(target)  # a result is asked later, perhaps by one rank alone
        self.target, self.potential, self.reg, self.n_samples = target, potential, reg, n_samples
        self._evaluation, self.verbose = evaluation, verbose
        most = max(PENDING // target.atoms.shape[1], 2 * target.atoms.shape[0])
        if points is not None and points.shape[0] > most:
            points = target.nx.copy(points[:most])
        self._points = points
        self._fit = None if fit is None else replace(fit.subsample(most), target=target)

    def __getstate__(self) -> dict[str, Any]:
        """All but the fit, which is made again from the points: it holds a Hessian."""
        return {name: value for name, value in vars(self).items() if name != "sample"}

    @functools.cached_property
    def evaluation(self) -> Evaluation:
        """Estimates of means."""
        if self._evaluation.n > 0 or self._points is None:
            return self._evaluation
        return evaluate(SemiDual(self.target), self._points, self.potential, self.reg)

    @functools.cached_property
    def value_linear(self) -> Any:
        """Mean cost under the plan of the potential, without the entropy."""
        if self._points is None:
            return None
        out = reduce(self.target, self._points, self.potential, self.reg, ("linear",))
        return self.target.nx.mean(out.linear)

    @functools.cached_property
    def certificate(self) -> Certificate:
        """Interval of the transport cost, and sub-optimality."""
        if self._points is None:
            return Certificate()
        evaluation, _ = self.evaluation, self.value_linear  # both made now, before the points go
        self.evaluation = replace(evaluation, measured=None)  # in the cache of the property
        if evaluation.measured is None or evaluation.measured.n > self._points.shape[0]:
            # it was of more points than are held
            evaluation = evaluate(SemiDual(self.target), self._points, self.potential, self.reg)
        found = self._certify(self._points, evaluation)
        self._points, self._fit, self._evaluation = self._most_points, None, UNKNOWN  # free the rest
        return found

    @property
    def _most_points(self) -> Array | None:
        """The fresh points, or those of the run that were fitted, if these are more."""
        held = [self._points, None if self._fit is None else self._fit.points]
        return max((x for x in held if x is not None), key=len, default=None)

    @functools.cached_property
    def sample(self) -> SampleFit:
        """The maximiser over these points, with which the potential is compared."""
        if self._most_points is None:
            raise no_points("error bars")
        return SampleFit("error bars", self.target, self._most_points, self.potential, self.reg)

    @property
    def law(self) -> NormalLaw:
        """Normal law of the maximiser."""
        return self.sample.law

    def functional(self, f: Callable[[Array, Array], Array]) -> tuple[float, float]:
        """As of :class:`SampleFit`."""
        return self.sample.functional(f)

    def _certify(self, x: Array, evaluation: Evaluation) -> Certificate:
        """Interval of the transport cost, and what the value at the potential is short of.

        On the fresh points, ``U >= H_n(psi*) >= H_n(psi)``, U the cost of a feasible plan: so the
        difference of U and the value, which share their noise, bounds the sub-optimality. The points of
        the run bound the cost itself more tightly from above, if they are more.
        """
        dual, measured = SemiDual(self.target), evaluation.measured
        assert measured is not None  # fresh points were measured
        n, value = x.shape[0], measured.value
        found, enough = NewtonResult(self.potential, measured, self.reg), n > measured.n_eff
        if enough:  # with fewer points there is nothing to correct by
            if n * dual.n_atoms > QUICK:
                words = f"value_interval, suboptimality: Newton's method on {n:,} fresh points"
                say(f"{words} of {dual.n_atoms:,} atoms, maybe longer than the run", self.verbose)
            found = maximize(dual, x, self.potential, self.reg, rtol=COARSE_RTOL)
        cost, stderr, rows = plan_cost(FittedPoints(self.target, x, found), n)
        paired = rows - in_double(measured.transform)
        noise = float(paired.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        gap = max(cost - value, 0.0) + NORMAL_95 * noise
        if self._fit is not None and self._fit.n > n:
            cost, stderr, _ = plan_cost(self._fit, n)
        given = float(evaluation.value)  # in the precision of the data
        low = min(value, given) - NORMAL_975 * evaluation.value_stderr
        high = max(cost, value, given) + NORMAL_975 * stderr
        suboptimality = gap
        if enough:
            suboptimality = min(_suboptimality(dual, x, found, value, self.n_samples, noise), gap)
        return Certificate((low, high), suboptimality, gap)

    def stored(self) -> "StoredEstimates":
        """All of them, made now, without the points; the normal law if it was asked for."""
        certificate = self.certificate
        return StoredEstimates(self.evaluation, self.value_linear, certificate, self.made_law)

    @property
    def made_law(self) -> NormalLaw | None:
        """The normal law, if it was asked for: it takes a fit."""
        return vars(self)["sample"].law if "sample" in vars(self) else None


@dataclass(frozen=True)
class StoredEstimates:
    """Estimates that need no points, of a file for example; attributes as of :class:`Estimates`."""

    evaluation: Evaluation
    value_linear: Any
    certificate: Certificate
    made_law: NormalLaw | None = None

    __repr__ = brief

    @property
    def law(self) -> NormalLaw:
        """The normal law, if it is known."""
        if self.made_law is None:
            raise no_points("error bars")
        return self.made_law

    def functional(self, f: Callable[[Array, Array], Array]) -> tuple[float, float]:
        """Refused: it takes points."""
        raise no_points("functional")

    def stored(self) -> "StoredEstimates":
        """The same."""
        return self

    def map(self, function: Callable[[Array], Array]) -> "StoredEstimates":
        """Apply `function` to every array (a move to another device, say)."""
        maybe = lambda array: None if array is None else function(array)
        means = self.evaluation
        means = replace(means, value=maybe(means.value), marginal=maybe(means.marginal), measured=None)
        law = None if self.made_law is None else self.made_law.map(function)
        return replace(self, evaluation=means, value_linear=maybe(self.value_linear), made_law=law)


def no_points(name: str) -> ValueError:
    """The error to raise where fresh points are needed, and there are none."""
    return ValueError(
        f"{name}: expected a result with source points, as a run returns (unless the metric is a "
        "callable or atoms are sharded), received one without, from a file or moved, say; give fresh "
        "points to applications.ErrorBars, where one process has the atoms."
    )


def _suboptimality(
    dual: SemiDual, x: Array, found: NewtonResult, value: float, n_samples: float, noise: float
) -> float:
    """Estimate of ``H(psi*) - H(psi)``: what the run's samples allow, or more if fresh points show it.

    The maximiser over n fresh points gains ``trace / (2 n)`` by chance. Neither is known, so that it is
    ``inf``, where the points hide boundaries of cells.
    """
    psi, reg = found.potential, found.eps
    models = Models(dual, x, psi, reg)
    if models.eps > reg and hides_boundaries(dual.target, x, psi, reg, models.nearest):
        return math.inf
    gain, n = found.measured.value - value, x.shape[0]
    chance = max(trace_estimate(models), 0.0) / (2.0 * n)  # of one cell it is 0 to rounding
    excess = gain - chance
    limit = chance * n / n_samples if n_samples > 0 else 0.0
    return max(limit, excess) if excess > SIGNIFICANT * max(noise, chance) or n_samples == 0 else limit
