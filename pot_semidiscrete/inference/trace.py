"""How far n samples let the value fall short: ``tr(A^+ Sigma) / (2 n)`` in the mean."""

from collections.abc import Sequence

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


def shrink(
    dual: SemiDual, x: Array, path: Sequence[tuple[Array, float]], found: NewtonResult, eps: float
) -> Array:
    """The potential a share of the way along some to that of Newton's method (James, Stein, 1961).

    Each has samples of its own. One that is fitted to n of them gains ``trace / (2 n)`` on these by
    chance, the trace at `eps`; the share of a part of the way is what of its gain on the points `x`,
    those of Newton's method, is above twice as much.
    """
    trace, last = trace_estimate(dual, x, found.potential, eps), found.measured
    value = lambda psi: dual.measure(x, psi, found.eps).value
    ends = [(psi, n, value(psi)) for psi, n in path[1:]] + [(found.potential, last.n, last.value)]
    psi = path[0][0]
    for end, n, reached in ends:
        share = max(0.0, 1.0 - trace / n / max(reached - value(psi), 1e-300))
        psi = psi + share * (end - psi)
    return psi
