"""Averaged stochastic ascent with eps-scaling.

A step is ``psi += eps clip(STEP (b - m) / b)``: ``eps / b`` is the inverse of a bound on the diagonal
curvature; where masses are free at a price, b and eps are the goal and the unit of ``Marginal``. It is
shorter for atoms that few points visit (:func:`compute_move`). The regularisation falls from the scale
of the costs (eps-scaling: Schmitzer, 2019), and from then on the iterates are averaged (Polyak and
Juditsky, 1992). Batches of points follow the noise of the gradient: few while `eps` is large, more as
the average settles.
"""

import math
from dataclasses import dataclass, replace

from ..backend import Array, Backend, brief, stride
from ..kernels import mean_cost
from ..problem import Target
from .semi_dual import Measurement, SemiDual

# benchmarks.constants tells what they are worth, if no other source is named
STEP = 0.7  # in units of eps / b; stable below 2 (Nesterov, 2004, 2.1.5)
LIGHTEST_ATOM = 0.3  # in units of 1 / n_atoms: what a step takes lighter ones for
CLIP = 6.0  # largest move of an atom in a step, in units of eps
BATCH = 0.5  # points of a batch, in units of n_eff, where averaging begins
COOLING = 0.1  # eps falls by exp(-COOLING) in a step of n_eff points, or faster ...
ANNEALING = 0.3  # ... to arrive within that share of the samples
LEAST_ROWS = 32  # points of a batch: with fewer, a step reads the atoms mostly; benchmarks.kernels
RESOLVED = 0.5  # share of E sum_j chi_j^2 with which eps resolves the atoms: from there it falls slowly
FEW_POINTS = 1024  # by which n_eff is estimated well enough


@dataclass(frozen=True)
class AscentState:
    """Where the ascent is.

    Attributes
    ----------
    potential : array, shape (n_support,)
        Last iterate.
    average : array, shape (n_support,)
        Average of the iterates since the annealing, the estimate.
    eps : float
        Present regularisation.
    annealed : float
        Regularisation at which averaging began; 0 before.
    samples : float
        Points since then.
    weight : float
        Of the average.
    drift : array, shape (n_support,)
        Average of the steps, in units of STEP eps, once eps is `reg`: what a linear model has of
        ``(g - m) / g`` at the average, but for the noise of the points.
    n_eff : float
        Effective number of atoms, that of the last step.
    mass, square : array, shape (n_support,)
        Sums of the weights and of their squares over all points.
    ratio : float
        Points of a batch of the annealing, in units of n_eff.
    """

    potential: Array
    average: Array
    eps: float
    annealed: float = 0.0
    samples: float = 0.0
    weight: float = 0.0
    drift: Array = 0.0
    n_eff: float = 1.0
    mass: Array = 0.0
    square: Array = 0.0
    ratio: float = BATCH

    __repr__ = brief

    @property
    def batch(self) -> int:
        """Points of the next step.

        The shortest steps take as long with more points: after `FEW_POINTS` of them these grow as the
        root of the samples, and the number of steps does.
        """
        ratio = self.ratio
        if self.annealed:
            ratio = averaging_ratio(self.samples / self.n_eff, self.eps / self.annealed)
        least = LEAST_ROWS * math.sqrt(max(self.samples / (LEAST_ROWS * FEW_POINTS), 1.0))
        return math.ceil(max(least, ratio * self.n_eff))

    @property
    def steps(self) -> float:
        """Steps that the samples since the annealing make, about: the integral of 1 / batch."""
        return 2.0 * self.samples / (BATCH * self.n_eff + self.batch)


def averaging_ratio(passes: float, cooled: float = 1.0) -> float:
    """Points of a batch in units of n_eff, once iterates are averaged, after as many samples.

    They grow where else steps would have to fall (Smith, Kindermans, Ying, Le, 2018). While eps falls,
    by the factor `cooled` so far, steps fall with it.
    """
    return BATCH * max(1.0, cooled * math.sqrt(1.0 + BATCH * passes))


def cold_start(dual: SemiDual, x: Array, reg: float, budget: float = 0.0) -> AscentState:
    """State to start from knowing nothing but a few points: with a single one, eps would be 0.

    The mean cost to each atom is the optimal potential of an infinite regularisation; where masses are
    free at a price, a share of it is. How much its value is below that at ``eps = 0`` is the scale of
    the costs that atoms compete for: the first eps.

    What the annealing leaves in slow modes stays there: noise, of variance 1 / ratio, and a lag, as eps
    falls by a factor exp(-rate) in a step. Its square is as the noise if ``rate ~ ratio^(-1/2)``. Then
    the samples, ratio / rate in units of the last n_eff, are ``ratio^(3/2)``: as many as `ANNEALING`
    allows. The budget is to the samples that are needed as n_atoms to n_eff. Batches are no larger than
    those at the end of a run whose eps is `reg`.

    Parameters
    ----------
    budget : float
        Samples that the run may take.
    """
    target, nx = dual.target, dual.target.nx
    cost = mean_cost(target, x)
    potential = target.zero_mean(cost)
    lowest = dual.measure(x, potential, 0.0).transform
    scale = float(nx.sum(target.weights * (cost - potential)) - nx.mean(lowest))
    eps = max(scale, reg, 0.0)
    potential = target.exponent(eps) * potential
    each = budget * target.n_problems / dual.n_atoms
    ratio = min((ANNEALING * COOLING * each) ** (2.0 / 3.0), averaging_ratio(each))
    return AscentState(potential, potential, eps, ratio=max(BATCH, ratio))


def resolving_eps(dual: SemiDual, x: Array, psi: Array, reg: float) -> float:
    """Regularisation from where to approach `reg`: one that resolves the atoms, or `reg` itself."""
    x = x[:: stride(x.shape[0], FEW_POINTS)]
    if reg > 0.0 and not is_resolved(dual, dual.measure(x, psi, reg)):
        return reg
    eps = max(cold_start(dual, x, reg).eps, reg)
    last = max(reg, dual.least_eps, dual.rounding(eps))
    while eps > last and not is_resolved(dual, dual.measure(x, psi, eps)):
        eps = max(eps / 2.0, last)
    return eps


def is_resolved(dual: SemiDual, found: Measurement) -> bool:
    """Whether eps resolves the atoms: points are half of the way from the weights b to a cell each."""
    least = dual.least_resolution
    # a single atom, or one that has nearly all of the mass, is resolved to within rounding
    resolved = dual.resolution(found.second_moment) - least
    return resolved >= RESOLVED * (1.0 - least) - dual.rounding(1.0)


def warm_start(
    dual: SemiDual, x: Array, psi: Array, reg: float, samples: float, n_eff: float
) -> AscentState:
    """State that continues from a potential, which counts for as much as so many samples."""
    psi, eps = dual.target.zero_mean(psi), resolving_eps(dual, x, psi, reg)
    return AscentState(psi, psi, eps, eps, samples, samples**1.5, n_eff=n_eff)


def compute_move(
    nx: Backend, goal: Array, marginal: Array, step: float = STEP, clip: float = CLIP, visit: Array = 0.0
) -> Array:
    """Move of one step from a potential whose masses are `marginal`, to be `goal`, in units of eps.

    Parameters
    ----------
    visit : array, shape (n_support,), optional
        Mass that a point gives to an atom if it visits it. The step of an atom is shortened until a
        visit moves it by no more than `clip`. Otherwise the clip cuts visits off, but not the steps up
        between them, and rare atoms settle at several times their mass.
    """
    unit = step / nx.clip(goal, LIGHTEST_ATOM / goal.shape[0])
    unit = unit / nx.clip(unit * visit / clip, 1.0)
    return nx.clip(unit * (goal - marginal), -clip, clip)


def step(
    dual: SemiDual, state: AscentState, x: Array, reg: float, left: float
) -> tuple[AscentState, Measurement]:
    """Take one step with the points `x`; then cool, or average.

    Iterates weigh as the square root of time, between uniform weights, which are best for noise, and
    those as time, in which the start counts for less (Lacoste-Julien, Schmidt, Bach, 2012). It costs
    1/8 of the variance.

    Steps of a constant length leave a bias (Dieuleveut, Durmus, Bach, 2020): the masses are right in the
    mean of the iterates, ``E m(psi) = b``, which is not where they are right, ``m(psi) = b``. By second
    order the mean lags behind by half the variance of an iterate among the atoms of a point, ``E move^2
    / (2 eta)``, times ``E chi (1 - chi) (1 - 2 chi) / E chi (1 - chi)``, which is about 1 - peak.

    Parameters
    ----------
    left : float
        Samples that the annealing may still take.

    Returns
    -------
    AscentState
    Measurement
        At the potential before the step: `x` had not been seen.
    """
    eps, n = state.eps, float(x.shape[0])
    eta = STEP * min(1.0, n / state.batch)  # the last batch may be short
    found = dual.measure(x, state.potential, eps)
    mass, square = state.mass + n * found.marginal, state.square + n * found.second_moment
    peak = square / dual.target.nx.clip(mass, 1e-30)  # weight at the points that count
    move = compute_move(dual.target.nx, found.goal, found.marginal, eta, visit=peak / n)
    unit = eps * dual.target.exponent(eps)
    psi = state.potential + unit * move
    # by the goal alone: larger while masses are off, so that batches are
    purity = float(dual.target.nx.sum(found.second_moment / found.goal))
    n_eff = min(max(purity - 1.0, 1.0), dual.n_atoms)
    state = replace(state, potential=psi, mass=mass, square=square, n_eff=n_eff)
    if not state.annealed and eps > max(reg, dual.least_eps) and not is_resolved(dual, found):
        rate = COOLING / math.sqrt(state.ratio)
        if reg > 0.0:  # it is known how far it is
            rate = max(min(rate, COOLING), math.log(eps / reg) * n / max(left, n))
        cooled = max(reg, eps * math.exp(-rate))
        slope = dual.target.exponent(eps) * slope_in_eps(dual.target, found.goal, peak)
        psi = psi + (cooled - eps) * slope
        return replace(state, potential=psi, average=psi, eps=cooled), found
    samples = state.samples + n
    weight = n * math.sqrt(samples)
    total = state.weight + weight
    share, start = weight / total, state.annealed or eps
    peak = float(dual.target.n_problems) * peak
    lag = dual.target.zero_mean(unit * (1.0 - peak) * move**2 / (4.0 * eta))
    average = state.average + share * (psi + lag - state.average)
    drift = state.drift
    if 0.0 < eps <= reg:  # else the optimum itself moves, as the regularisation falls
        drift = drift + share * (move / eta - drift)
    # below what resolves the atoms, eps falls as the noise of the average (Genans et al., 2025)
    eps = max(reg, start / math.sqrt(1.0 + samples / n_eff))
    return replace(
        state, average=average, drift=drift, eps=eps, annealed=start, samples=samples, weight=total
    ), found


def slope_in_eps(target: Target, goal: Array, peak: Array) -> Array:
    """How the optimal potential changes with eps, about: a prediction for modes too slow to follow it.

    Where points see many atoms of a density, the cost falls by ``eps / 2 E log density`` (Conforti,
    Tamanini, 2021). So the potential, its derivative, falls by ``eps / 2 log density``. The weight of an
    atom at the points that see it, over its mass, is as 1 / density, but for the stretch of the map. An
    atom that has points of its own moves no longer.

    Parameters
    ----------
    goal : array, shape (n_support,)
        Masses to reach.
    peak : array, shape (n_support,)
        That weight, ``E chi^2 / E chi``.
    """
    nx, alone = target.nx, float(target.n_problems) * peak
    goal = nx.clip(goal, 1e-30)
    return target.zero_mean(0.5 * (1.0 - alone) * nx.log(nx.maximum(peak, goal) / goal))
