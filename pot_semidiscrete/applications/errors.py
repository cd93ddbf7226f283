"""Error bars: standard errors of a fitted potential, its map and its plan, due to the points."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array, describe, in_double, no_grad, ours
from ..inference.trace import PRECISE
from ..kernels import reduce, weight_blocks
from ..optim.hessian import DenseHessian, hessian
from ..optim.newton import can_correct, maximize
from ..optim.semi_dual import SemiDual
from ..plan import SemiDiscretePlan
from ..problem import Problem, check_array, check_callable, check_count
from ..samplers.sobol import resolve_seed


class ErrorBars:
    r"""Standard errors of potential, map and plan, by the central limit theorem of the potential.

    .. math::
        \sqrt{n}\, (\psi_n - \psi^*) \to \mathcal{N}(0, A^+ \Sigma A^+), \qquad
        A = -\nabla^2 H(\psi^*), \quad \Sigma = \mathrm{Cov}\, \chi(X) .

    The theorem is about the maximiser over n points. So the potential is fitted again to fresh points,
    starting from that of the result; the standard errors are those of this fit, `plan`. (A result that
    stopped when its masses were right may have a larger error along slow modes.) Up to 256 atoms both
    matrices are computed. Beyond, the covariance is estimated by random vectors that have it, and
    standard errors have a relative noise of :math:`1 / \sqrt{2\,\mathrm{n\_probes}}`. Those of the map
    use its derivative in the potential, and are too small where the map is sharp and its error large.

    Parameters
    ----------
    result : SemiDiscreteResult
        Of ``reg > 0``.
    x : array, shape (n, d)
        Fresh independent source points, many times as many as there are atoms.
    n_probes : int, default=64
        Random vectors, for more than 256 atoms.
    random_state : None, int or numpy Generator
        Randomness of these vectors.

    Attributes
    ----------
    plan : SemiDiscretePlan
        The plan of the fitted potential: ``plan.potential``, ``plan.ot_map(x)`` and so on, as of a
        result.
    potential_stderr : array, shape (n_atoms,)
        Standard error of ``plan.potential``, 0 at atoms of weight 0.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape or range, if points are fewer than the effective number
        of atoms, or if ``reg = 0``, where points cannot estimate the Hessian.

    References
    ----------
    Bercu, Bigot, "Asymptotic Distribution and Convergence Rates of Stochastic Algorithms for Entropic
    Optimal Transportation between Probability Measures", Annals of Statistics 49, 2021; Bercu, Bigot,
    Gadat, Siviero, "A Stochastic Gauss-Newton Algorithm for Regularized Semi-discrete Optimal
    Transport", Information and Inference 12, 2023; del Barrio, Gonzalez-Sanz, Loubes, Rodriguez-Vitores,
    "Distributional Limit Theory for Optimal Transport", arXiv:2505.19104 (plans, maps and costs).

    Examples
    --------
    Two atoms that are mirror images: the potential is 0, and what is fitted is near it.

    >>> import numpy as np
    >>> from pot_semidiscrete import solve_semidiscrete
    >>> from pot_semidiscrete.applications import ErrorBars
    >>> atoms, rng = np.array([[-1.0], [1.0]]), np.random.default_rng(0)
    >>> result = solve_semidiscrete(atoms, "normal", reg=1.0, random_state=0)
    >>> bars = ErrorBars(result, rng.normal(size=(1000, 1)))
    >>> bool(np.all(np.abs(bars.plan.potential) < 3.0 * bars.potential_stderr))
    True
    >>> cost, stderr = bars.functional(lambda x, y: (x - y.T) ** 2)
    >>> 0.0 < stderr < 0.1 * cost
    True
    """

    @ours()
    def __init__(
        self, result: SemiDiscretePlan, x: Array, *, n_probes: int = 64, random_state: Any = None
    ) -> None:
        if not isinstance(result, SemiDiscretePlan):
            raise TypeError(
                f"result: expected a SemiDiscreteResult, received {describe(result)}; give that of "
                "solve_semidiscrete."
            )
        result._check_whole("result")
        self._n_probes, random = check_count("n_probes", n_probes), resolve_seed(random_state)
        target, reg = result._target, result.reg
        if reg == 0.0:
            raise ValueError(
                "result: expected one of reg > 0, received one of 0, whose Hessian is a density on the "
                "boundaries of cells, which points do not see; solve with a reg above 0."
            )
        x, dual = target.nx.detach(Problem(target, reg).points("x", x)), SemiDual(target)
        with no_grad(target.nx):
            n_eff = dual.measure(x, result._potential, reg).n_eff
            if x.shape[0] <= n_eff or not can_correct(dual, x.shape[0], n_eff):
                raise ValueError(
                    f"x: expected more points than {n_eff:.0f}, the effective number of atoms, and room "
                    f"for their weights, received {x.shape[0]}; give more, or solve with a larger reg."
                )
            psi = target.normalized(maximize(dual, x, result._potential, reg, rtol=1e-3).potential)
            self._hessian = hessian(dual, x, psi, reg, x.shape[0])
        self.plan, self._x, self._seed = SemiDiscretePlan(target, psi, reg), x, random
        self._unit = reg * target.exponent(reg)  # minus the Hessian of H is self._hessian / unit

    def __repr__(self) -> str:
        return f"ErrorBars(n={self._x.shape[0]}, n_atoms={self.plan._target.n_atoms})"

    @functools.cached_property
    def _factor(self) -> Array:
        """Rows f, shape (k, n_support), with ``sum f f^T`` the covariance of the potential."""
        found, target, random = self._hessian, self.plan._target, np.random.default_rng(self._seed)
        nx, scale = target.nx, self._unit / math.sqrt(self._x.shape[0])
        if isinstance(found, DenseHessian):
            values, vectors = np.linalg.eigh(found.covariance)
            root = nx.from_numpy(vectors * np.sqrt(np.maximum(values, 0.0)), type_as=target.weights)
            moves = list(found.solve(root, 0.0).T)
        else:
            moves, scale = [], scale / math.sqrt(self._n_probes * found.n)
            for _ in range(self._n_probes):
                probe = 0.0 * target.weights
                for chi in found.blocks:  # sums with random signs have the covariance of the weights
                    r = nx.from_numpy(random.choice([-1.0, 1.0], chi.shape[0]), type_as=chi)
                    probe = probe + nx.dot(r, chi) - nx.sum(r) * found.mean
                moves.append(found.solve(probe, 0.0, PRECISE))
        goal = target.goal(self.plan._potential)  # <goal, move> is 0 as long as psi is normalized
        return scale * nx.stack([move - nx.sum(goal * move) for move in moves])

    @property
    @ours()
    def potential_stderr(self) -> Array:
        """Standard error of the potential, shape (n_atoms,)."""
        target = self.plan._target
        return target.scatter(target.nx.sum(self._factor**2, axis=0) ** 0.5)

    @ours()
    def map_stderr(self, x: Array) -> Array:
        """Standard error of ``plan.ot_map(x)``, by the derivative of the map in the potential.

        Parameters
        ----------
        x : array, shape (n, d)

        Returns
        -------
        array, shape (n, d)
        """
        target, reg, nx = self.plan._target, self.plan.reg, self.plan._target.nx
        x, factor, errors = nx.detach(self.plan._points(x)), self._factor.T, []
        for _, chi in weight_blocks(target, x, self.plan._potential, reg):
            T, mean = nx.dot(chi, target.atoms), nx.dot(chi, factor)
            moves = [
                nx.dot(chi, target.atoms[:, k : k + 1] * factor) - T[:, k : k + 1] * mean
                for k in range(T.shape[1])
            ]
            errors.append(nx.stack([nx.sum(move**2, axis=1) ** 0.5 / reg for move in moves], axis=1))
        return nx.concatenate(errors, axis=0)

    @ours()
    def functional(self, f: Callable[[Array, Array], Array]) -> tuple[float, float]:
        r"""Estimate of :math:`\int f \, d\pi`, of the optimal plan, and its standard error.

        Parameters
        ----------
        f : callable
            ``(x, y) -> matrix``, shape (n, n_atoms), of source points and atoms, as a metric.

        Returns
        -------
        estimate, stderr : float
        """
        f = check_callable("f", f, "(x, y) -> matrix")
        target, psi, reg = self.plan._target, self.plan._potential, self.plan.reg
        nx = target.nx
        origin = 0.0 * target.atoms[0] if target.origin is None else target.origin
        slope, rows, n = 0.0 * target.weights, [], self._x.shape[0]
        for x, chi in weight_blocks(target, self._x, psi, reg):
            weighted = chi * _checked(f(x + origin, target.atoms + origin), chi)
            rows.append(nx.sum(weighted, axis=1))
            slope = slope + nx.sum(weighted, axis=0) - nx.dot(rows[-1], chi)
        # a point moves psi by A^+ (b - chi) / n, and the mean by the product of that with the slope
        v = self._hessian.solve(self._unit / reg * slope / float(n), 0.0, PRECISE)
        moved = reduce(target, self._x, psi, reg, ("average",), values=v).average
        values, moved = map(in_double, (nx.concatenate(rows, axis=0), moved))
        return float(values.mean()), float((values - moved).std(ddof=1) / math.sqrt(n))


def _checked(values: Any, chi: Array) -> Array:
    """Check what a user's function returned for a block."""
    check_array("f", values)
    if tuple(values.shape) != tuple(chi.shape) or values.dtype != chi.dtype:
        raise ValueError(
            f"f: expected a matrix of shape {tuple(chi.shape)} and {chi.dtype}, a value for each point "
            f"and atom, received {describe(values)}."
        )
    return values
