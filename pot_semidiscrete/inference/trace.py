"""How far n samples let the value fall short: ``tr(A^+ Sigma) / (2 n)`` in the mean."""

import numpy as np

from ..backend import Array, in_double, no_grad
from ..optim.hessian import DENSE, DenseHessian, hessian
from ..optim.newton import ROWS, NewtonResult
from ..optim.semi_dual import SemiDual

PROBES = 4  # random vectors (Hutchinson, 1990)
PRECISE = 1e-3  # forcing of their linear systems: slow modes, solved last, are most of the trace


def trace_estimate(dual: SemiDual, x: Array, psi: Array, eps: float) -> float:
    """Estimate ``tr(A^+ Sigma)``, A minus the Hessian and Sigma the covariance of the weights.

    Exact for the points where the Hessian is a matrix; else by random signs of the points, whose
    weights then have the covariance Sigma, with the Hessian of a part of them.
    """
    with no_grad(dual.target.nx):
        return _trace(dual, x, psi, eps)


def _trace(dual: SemiDual, x: Array, psi: Array, eps: float) -> float:
    measured = dual.measure(x, psi, eps)
    rows = max(ROWS * measured.n_eff, x.shape[0] / ROWS) if dual.n_atoms > DENSE else x.shape[0]
    found, scale = hessian(dual, x, psi, eps, rows), eps * dual.target.exponent(eps)
    if isinstance(found, DenseHessian):
        return scale * _exact(found)
    probes = found.probes(PROBES, np.random.default_rng(0))
    products = in_double(found.nx.sum(probes * found.solve(probes, 0.0, PRECISE), axis=1))
    return scale * float(products.mean()) / found.n


def _exact(found: DenseHessian) -> float:
    """``tr(M^+ Sigma)``, M scaled to ``D^{-1/2} M D^{-1/2}``: small weights are no null space."""
    root = np.sqrt(np.maximum(found.scale, 1e-300))
    values, vectors = np.linalg.eigh(found.matrix / np.outer(root, root))
    kept = values > 1e-9 * values[-1]  # the null space is that of the constants
    kept[0] = False
    parts = vectors[:, kept] / root[:, None]
    return float(np.sum(parts * (found.covariance @ parts / values[kept])))


def shrink(dual: SemiDual, x: Array, prior: Array, found: NewtonResult, reg: float, eps: float) -> Array:
    """The potential a share of the way from `prior` to that of Newton's method (James, Stein, 1961).

    The prior rests on other points, too. By chance Newton's method gains ``trace / (2 n)`` on the points
    `x`; the share is the part of its gain that is above twice as much.
    """
    gain = found.measured.value - dual.measure(x, prior, reg).value
    chance = trace_estimate(dual, x, found.potential, eps) / x.shape[0]
    share = max(0.0, 1.0 - chance / max(gain, 1e-300))
    return prior + share * (found.potential - prior)
