"""How far n samples let the value fall short: ``tr(A^+ Sigma) / (2 n)`` in the mean."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, in_double, no_grad
from ..optim.ascent import RESOLVED, resolving_eps
from ..optim.hessian import DenseHessian, newton_model
from ..optim.newton import NewtonResult
from ..optim.semi_dual import SemiDual
from .gaps import Nearest, nearest_boundaries, nearest_links

PROBES = 4  # random vectors (Hutchinson, 1990)
PRECISE = 1e-3  # forcing of their linear systems: slow modes, solved last, are most of the trace


class Models:
    """Minus the Hessian at all points, and its kernel estimate where they do not see it.

    As `reg` falls, minus the Hessian of the transform tends to a density on the boundaries of the cells
    (Kitagawa, Merigot, Thibert, 2019), and an average over points knows it by those within about `reg`
    of a boundary. So it is a kernel estimate, and takes a bandwidth that has points: the regularisation
    that resolves the atoms, at which the boundaries are left where they are. So the covariance of
    regression quantiles is estimated, whose objective is not smooth either (Powell, 1991). The masses to
    reach remain those of the potential. Where the Hessian is a matrix, boundaries that less than a point
    sees have a wider one (``gaps.nearest_links``).

    Attributes
    ----------
    at, eps : array, float
        Where the points see it.
    unit : float
        Minus the Hessian is ``seen / unit``.
    """

    def __init__(self, dual: SemiDual, x: Array, psi: Array, reg: float) -> None:
        target, self._given = dual.target, (dual, x, psi, reg)
        with no_grad(target.nx):
            self.eps = eps = resolving_eps(dual, x, psi, reg)
            self.at = psi if eps == reg else psi + (reg - eps) * target.log_weights
        self.unit = eps * target.exponent(eps)

    @property
    def own(self) -> Any:
        """That at `reg`. It is not kept, for it holds the weights of the points."""
        dual, x, psi, reg = self._given
        if self.eps == reg:
            return self.seen
        with no_grad(dual.target.nx):
            return newton_model(dual, x, psi, reg, x.shape[0], dual.target.goal(psi))

    @functools.cached_property
    def seen(self) -> Any:
        """That where the points see it."""
        dual, x, psi, reg = self._given
        with no_grad(dual.target.nx):
            found = newton_model(dual, x, self.at, self.eps, x.shape[0], dual.target.goal(psi))
            if self.eps > reg and isinstance(found, DenseHessian):
                found.raise_links(*nearest_links(self.nearest, dual.n_atoms, self.eps))
            return found

    @functools.cached_property
    def nearest(self) -> Nearest:
        """The boundary of cells that each point is nearest to."""
        dual, x, psi, reg = self._given
        with no_grad(dual.target.nx):
            return nearest_boundaries(dual.target, x, psi, reg)


def trace_estimate(models: Models) -> float:
    """Estimate ``tr(A^+ Sigma)``, A minus the Hessian and Sigma the covariance of the weights.

    Exact for the points where the Hessian is a matrix; else by random signs of the points, whose
    weights then have the covariance Sigma. Groups of atoms that no point links count one by one; where
    the Hessian is a matrix, those that less than a point links count as if one did.
    """
    own, unit = models.own, models.unit
    if isinstance(own, DenseHessian):
        seen = models.seen
        values, parts = seen.modes()
        # p (1 - p) of points, p the weight of the atoms at the higher end of a mode: a group that hangs
        # by less than a point that sees half of it counts as if there were one
        middle = (parts.max(axis=0, initial=-np.inf) + parts.min(axis=0, initial=np.inf)) / 2.0
        ends = (parts > middle).astype(float)
        links = np.maximum(seen.n * np.sum(ends * (seen.matrix @ ends), axis=0), 1e-30)
        values = np.where(values > RESOLVED, values, values * np.maximum(1.0, 0.25 / links))
        return unit * float(np.sum(parts * (own.covariance @ parts / values)))
    nx = own.nx
    with no_grad(nx):
        probes, n = own.probes(PROBES, np.random.default_rng(0)), own.n
        del own  # its weights make room for those of the other
        products = in_double(nx.sum(probes * models.seen.solve(probes, 0.0, PRECISE), axis=1))
        return unit * float(products.mean()) / n


def shrink(dual: SemiDual, x: Array, path: Sequence[tuple[Array, float]], found: NewtonResult) -> Array:
    """The potential a share of the way along some to that of Newton's method (James, Stein, 1961).

    Each has samples of its own. One that is fitted to n of them gains ``trace / (2 n)`` on these by
    chance; the share of a part of the way is what of its gain on the points `x`, those of Newton's
    method, is above twice as much.
    """
    trace, last = trace_estimate(Models(dual, x, found.potential, found.eps)), found.measured
    value = lambda psi: dual.measure(x, psi, found.eps).value
    ends = [(psi, n, value(psi)) for psi, n in path[1:]] + [(found.potential, last.n, last.value)]
    psi = path[0][0]
    for end, n, reached in ends:
        share = max(0.0, 1.0 - trace / n / max(reached - value(psi), 1e-300))
        psi = psi + share * (end - psi)
    return psi
