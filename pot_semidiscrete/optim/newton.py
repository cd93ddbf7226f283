"""Newton's method on a sample average: what an ascent of small steps leaves along slow modes.

Levenberg-Marquardt: the damping follows the ratio of the increase measured to the one that the model
predicts (Nocedal and Wright, 2006, sections 4.1 and 10.3). The model's Hessian is that of a part of the
points (Byrd, Chin, Neveitt, Nocedal, 2011). Atoms whose mass is off by a factor e, for which a quadratic
model is poor, first take a Sinkhorn iteration, ``psi += eps log(b / m)``.
"""

import math
from dataclasses import dataclass

from ..envelope import full_precision, no_grad
from .ascent import cold_start, resolving_eps
from .hessian import hessian, most_rows
from .semi_dual import Array, Measurement, SemiDual

ROWS = 8.0  # the Hessian is that of n / ROWS points, ROWS n_eff at least; benchmarks.solver
DAMPING = 1e-3  # Levenberg's first mu, in units of D
BOX = 30.0  # first largest move of an atom in an iteration, in units of eps; benchmarks.solver: 25
NEGLIGIBLE = 0.1  # increases below that share of the statistical error, eps n_eff / (2 n), are left
GOOD, POOR = 0.75, 0.25  # gain ratios: the model is trusted more, or less (Nocedal and Wright, (4.12))
MAX_ITERATIONS = 30  # at one eps
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
    """

    potential: Array
    measured: Measurement
    eps: float


def maximize(
    dual: SemiDual,
    x: Array,
    psi: Array,
    reg: float,
    work: float = math.inf,
    rtol: float = NEGLIGIBLE,
    eps: float = 0.0,
) -> NewtonResult:
    """Maximise the average over the points `x`, to within its statistical error.

    Parameters
    ----------
    dual : SemiDual
    x : array, shape (n, d)
    psi : array, shape (n_support,)
        Potential to start from. The value never falls below its own.
    reg : float
    work : float
        Entries that may be evaluated, about; at ``reg = 0``, at each of several levels.
    rtol : float
        Share of the statistical error that need not be gained; 0 goes on to rounding.
    eps : float
        Where to begin at ``reg = 0``, if known: a regularisation that tells atoms apart.
    """
    with full_precision(dual.target.nx, x), no_grad(dual.target.nx):
        if reg > 0.0:
            return newton_cg(dual, x, psi, reg, dual.work + work, rtol)
        eps = eps or resolving_eps(dual, x, psi)
        return continuation(dual, x, psi, eps, work, rtol)


def newton_cg(
    dual: SemiDual, x: Array, psi: Array, eps: float, last: float = math.inf, rtol: float = NEGLIGIBLE
) -> NewtonResult:
    """Maximise the average over the points `x` at ``eps > 0``, until the count of work is `last`."""
    target, nx, n = dual.target, dual.target.nx, x.shape[0]
    found, mu, box, rho, model = dual.measure(x, psi, eps), DAMPING, BOX, 0.0, None
    share = 0.0
    rounding = dual.rounding(found.value) / math.sqrt(n)  # of a mean
    for _ in range(MAX_ITERATIONS):
        if dual.work >= last:
            break
        log_ratio = nx.log(target.weights / nx.maximum(found.marginal, 1e-30 + 0.0 * target.weights))
        if float(nx.max(nx.abs(log_ratio))) > 1.0:
            psi = psi + eps * nx.clip(log_ratio, -BOX, BOX)
            found, model = dual.measure(x, psi, eps), None
        if model is None:
            rows = max(ROWS * found.n_eff, n / ROWS, share * n) if rtol > 0.0 else n
            model = hessian(dual, x, psi, eps, rows)
        g, unit = target.weights - found.marginal, eps * found.n_eff / (2.0 * n)
        s = target.centred(nx.clip(model.solve(g, mu), -box, box))
        slope, curvature = float(nx.sum(g * s)), float(nx.sum(s * model.apply(s)))
        # the box may have bent the step: as far as the model rises along it
        length = min(slope / curvature, 1.0) if curvature > 0.0 else 1.0
        s, predicted = length * s, eps * length * (slope - 0.5 * length * curvature)
        longest = float(nx.max(nx.abs(s)))
        if predicted <= max(rtol * unit, rounding):
            break
        trial = psi + eps * s
        measured = dual.measure(x, trial, eps)
        rho = (measured.value - found.value) / predicted
        if rho > GOOD:
            mu, box = max(mu / 10.0, 1e-8), 2.0 * box
        elif not rho >= POOR and 2 * model.n <= min(n, most_rows(dual)):  # a model of too few points
            share, model = 4.0 * model.n / n, None
        elif not rho >= POOR:
            mu, box = 4.0 * mu, longest / 4.0
        if rho > 0.0:
            psi, found, model = trial, measured, None
        if predicted < (8.0 if rho > GOOD else 2.0) * rtol * unit:
            break  # convergence is quadratic: the next increase would be far smaller, or is none
    return NewtonResult(target.centred(psi), found, eps)


def continuation(
    dual: SemiDual, x: Array, psi: Array, eps: float, work: float, rtol: float = NEGLIGIBLE
) -> NewtonResult:
    """Maximise at ``eps = 0``: from above, until the masses there are right or no longer improve.

    At 0 the Hessian is a density on the boundaries of cells, which no sample sees.
    """
    target, nx, n = dual.target, dual.target.nx, x.shape[0]
    best = NewtonResult(target.centred(psi), dual.measure(x, psi, 0.0), 0.0)
    chance, lacks = dual.n_atoms / n, math.inf
    rounding = dual.rounding(eps)
    while eps > rounding:
        psi = newton_cg(dual, x, psi, eps, dual.work + work, rtol).potential
        found = dual.measure(x, psi, 0.0)
        if found.value > best.measured.value:
            best = NewtonResult(psi, found, 0.0)
        before, lacks = lacks, float(nx.sum((found.marginal - target.weights) ** 2 / target.weights))
        if lacks < chance / DECAY or not lacks < before:
            break
        eps /= DECAY
    return best


def eps_scaling(dual: SemiDual, x: Array, reg: float) -> NewtonResult:
    """Maximise at ``reg > 0`` from nothing, through falling regularisations, to rounding."""
    state = cold_start(dual, x, reg)
    psi, eps = state.potential, state.eps
    while eps > reg:
        psi = newton_cg(dual, x, psi, eps).potential
        eps = max(eps / DECAY, reg)
    return newton_cg(dual, x, psi, reg, rtol=0.0)
