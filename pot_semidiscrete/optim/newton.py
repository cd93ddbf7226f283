"""Newton's method on a sample average: what an ascent of small steps leaves along slow modes.

Levenberg-Marquardt: the damping follows the ratio of the increase measured to the one that the model
predicts (Nocedal and Wright, 2006, sections 4.1 and 10.3). The model's Hessian is that of a part of the
points (Byrd, Chin, Neveitt, Nocedal, 2011). Atoms whose mass is off by a factor e, for which a quadratic
model is poor, first take a Sinkhorn iteration, ``psi += eps log(b / m)``; where masses are free at a
price, b and eps are the goal and the unit of ``Marginal``.
"""

import math
from dataclasses import dataclass, replace

from ..backend import Array, brief, no_grad, stride
from ..kernels import exponent_floor
from .ascent import FEW_POINTS, cold_start, resolving_eps
from .hessian import MAX_ITERATIONS, most_rows, newton_model
from .semi_dual import Measurement, SemiDual

# benchmarks.constants tells what they are worth, if no other source is named
ROWS = 8.0  # the Hessian is that of n / ROWS points, ROWS n_eff at least
DAMPING = 1e-3  # Levenberg's first mu, in units of D
BOX = 30.0  # first largest move of an atom in an iteration, in units of eps
CORRECTION = 4.0  # passes over its points that it takes, mostly; benchmarks.scaling: 2.5 to 5 ...
QUICK = 2**29  # ... or entries evaluated in a few seconds: it may always take as many
NEGLIGIBLE = 0.1  # increases below that share of the statistical error, eps n_eff / (2 n), are left
MANY = 1024  # points an atom, from where ROWS^2 of them are maximised over first; benchmarks.correction
DECAY = 4.0  # of eps from one level to the next


@dataclass(frozen=True)
class NewtonResult:
    """Where Newton's method went.

    Attributes
    ----------
    potential : array, shape (n_support,)
        Of weighted mean 0.
    measured : Measurement
        That of the points there.
    eps : float
        Regularisation.
    converged : bool
        Whether it ended before its bound of work.
    """

    potential: Array
    measured: Measurement
    eps: float
    converged: bool = True

    __repr__ = brief


def can_correct(dual: SemiDual, n: int, n_eff: float) -> bool:
    """Whether n points have anything to correct by: they are no fewer than effective atoms.

    And whether there is room for the weights of as many, of which the Hessian is made.
    """
    return n_eff <= min(n, most_rows(dual))


def maximize(
    dual: SemiDual,
    x: Array,
    psi: Array,
    reg: float,
    rtol: float = NEGLIGIBLE,
    eps: float = 0.0,
    max_work: float | None = None,
) -> NewtonResult:
    """Maximise the average over the points `x`, to within its statistical error.

    At a `reg` that is 0, or so small that points lie in one cell each, the Hessian is a density on the
    boundaries of cells, which no sample sees. There it is from above that `reg` is approached, until
    the masses are right or no longer improve.

    Where points are many, the way is made with few of them (Byrd, Chin, Nocedal, Wu, 2012).

    Parameters
    ----------
    dual : SemiDual
    x : array, shape (n, d)
    psi : array, shape (n_support,)
        Potential to start from. The value never falls below its own.
    reg : float
    rtol : float
        Share of the statistical error that need not be gained.
    eps : float
        Where to begin, if known: see :func:`resolving_eps`.
    max_work : float, optional
        What it may take; some passes by default.
    """
    n = x.shape[0]
    with no_grad(dual.target.nx):
        eps = eps or resolving_eps(dual, x, psi, reg)
        # two levels that are quick, or four
        quick, passes = (2.0 * QUICK, 4.0 * CORRECTION) if eps > reg else (QUICK, CORRECTION)
        usual = max(quick, passes * n * dual.n_atoms)
        last = dual.work + (usual if max_work is None else max_work)
        if eps > reg:
            return continuation(dual, x, psi, reg, eps, rtol, last)
        if n < MANY * dual.n_atoms:
            return newton_cg(dual, x, psi, reg, last, rtol)
        found = dual.measure(x, psi, reg)
        part = x[:: stride(n, int(ROWS**2) * dual.n_atoms)]
        start = newton_cg(dual, part, psi, reg, last).potential
        trial = dual.measure(x, start, reg)
        if trial.value > found.value:  # or where it started knows more than so few points do
            psi, found = start, trial
        return newton_cg(dual, x, psi, reg, last, rtol, found)


def continuation(
    dual: SemiDual, x: Array, psi: Array, reg: float, eps: float, rtol: float, last: float
) -> NewtonResult:
    """Maximise at falling regularisations, from `eps` to `reg`; the best of them all at `reg`."""
    target, nx = dual.target, dual.target.nx
    best = NewtonResult(target.zero_mean(psi), dual.measure(x, psi, reg), reg)
    psi = from_above(dual, x, psi, eps, last)
    chance, error = dual.n_atoms / x.shape[0], math.inf
    for _ in range(MAX_ITERATIONS):
        psi = newton_cg(dual, x, psi, eps, last, rtol).potential
        found = dual.measure(x, psi, reg)
        if found.value > best.measured.value:
            best = NewtonResult(psi, found, reg)
        before, error = error, float(nx.sum((found.marginal - found.goal) ** 2 / found.goal))
        if error < chance / DECAY or not error < before or eps <= reg or dual.work >= last:
            break
        eps = max(eps / DECAY, reg)
    return replace(best, converged=dual.work < last)


def from_above(dual: SemiDual, x: Array, psi: Array | None, eps: float, last: float) -> Array:
    """A potential near the best at `eps`, by larger regularisations, which take few of the points.

    It starts from `psi`, or from nothing.
    """
    n, n_eff = x.shape[0], 1.0
    start = cold_start(dual, x[:: stride(n, FEW_POINTS)], eps)
    psi, level = start.potential if psi is None else psi, start.eps
    while level > eps:
        part = x[:: stride(n, max(FEW_POINTS, int(ROWS**2 * n_eff)))]
        found = newton_cg(dual, part, psi, level, last)
        psi, n_eff, level = found.potential, found.measured.n_eff, level / DECAY
    return psi


def newton_cg(
    dual: SemiDual,
    x: Array,
    psi: Array,
    eps: float,
    last: float = math.inf,
    rtol: float = NEGLIGIBLE,
    found: Measurement | None = None,
) -> NewtonResult:
    """Maximise the average over the points `x` at ``eps > 0``, until the count of work is `last`.

    Cut off there, it ends with a Sinkhorn iteration, for Newton's last step may leave masses far off.
    `found` is what was measured at `psi`, if it was.
    """
    target, nx, n = dual.target, dual.target.nx, x.shape[0]
    found = dual.measure(x, psi, eps) if found is None else found
    model, mu, box, least_rows = None, DAMPING, BOX, 0.0
    is_small = False  # the last increase, and as predicted
    scale = eps * target.exponent(eps)  # of potentials
    rounding = dual.rounding(found.value) / math.sqrt(n)  # of a mean
    # masses below it are not told apart: kernels cut them off
    least = max(math.exp(exponent_floor(psi)), 1e-30)
    for _ in range(MAX_ITERATIONS):
        # the masses are so far from the goal that a Sinkhorn iteration is due
        log_ratio = nx.log(nx.clip(found.goal, least) / nx.clip(found.marginal, least))
        is_rough, is_over = float(nx.max(nx.abs(log_ratio))) > 1.0, dual.work >= last
        if is_small and not is_rough:
            break  # convergence is quadratic: the next increase would be far smaller
        if is_rough or is_over:
            psi = psi + scale * nx.clip(log_ratio, -BOX, BOX)
            found, model = dual.measure(x, psi, eps), None
        if is_over:
            break
        if model is None:
            rows = max(ROWS * found.n_eff, n / ROWS, least_rows) if rtol > 0.0 else n
            model = newton_model(dual, x, psi, eps, rows, found.goal)
        g, unit = found.goal - found.marginal, scale * found.n_eff / (2.0 * n)
        s = target.zero_mean(nx.clip(model.solve(g, mu), -box, box))
        slope, curvature = float(nx.sum(g * s)), float(nx.sum(s * model.apply(s)))
        # the box may have bent the step: as far as the model rises along it
        length = min(slope / curvature, 1.0) if curvature > 0.0 else 1.0
        s, predicted = length * s, scale * length * (slope - 0.5 * length * curvature)
        longest = float(nx.max(nx.abs(s)))
        if predicted <= max(rtol * unit, rounding):
            if is_rough:
                continue
            break
        trial = psi + scale * s
        measured = dual.measure(x, trial, eps)
        rho = (measured.value - found.value) / predicted
        # ratios and the box are of Nocedal and Wright, algorithm 4.1; mu falls as in Marquardt (1963)
        if rho > 0.75:
            mu, box = max(mu / 10.0, 1e-8), 2.0 * box
        elif not rho >= 0.25 and 2 * model.n <= min(n, model.most_rows):  # a model of too few points
            least_rows, model = 4.0 * model.n, None
        elif not rho >= 0.25:
            mu, box = 4.0 * mu, longest / 4.0
        if rho > 0.0:
            psi, found, model = trial, measured, None
        is_small = rho >= 0.25 and predicted < (8.0 if rho > 0.75 else 2.0) * rtol * unit
    return NewtonResult(target.zero_mean(psi), found, eps, dual.work < last)


def eps_scaling(dual: SemiDual, x: Array, reg: float) -> NewtonResult:
    """Maximise at ``reg > 0`` from nothing, through falling regularisations, to rounding."""
    return newton_cg(dual, x, from_above(dual, x, None, reg, math.inf), reg, rtol=0.0)
